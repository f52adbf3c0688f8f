"""DICOM and NIfTI files as planes of numbers, with what they themselves say about black and white (extra `medical`).

Nothing here scales to 8 bits: `ssd.data.images.deep` does, by the operator's window or by the file's. Names of patients
and other words of a file are neither kept nor printed.
"""
