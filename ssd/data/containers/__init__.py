"""Where image files lie: a folder tree, a zip or tar archive read in place, or the files that a list names.

A container lists its files and opens them; it decodes nothing and decides nothing about pixels. Nothing is unpacked.
"""
