"""What `import ssd` offers: an encoder for one's own images, a federation on this machine, a coordinator to look at.

Everything here is reached as `ssd.NAME`; `ssd/__init__.py` imports it when it is first asked for.
"""
