"""Server strategies, one file each: pure float32 arithmetic on the mean update, the same bits on every host.

A strategy sees the mean of an exact sum, never one client's update, and its moments commit with the version.
"""
