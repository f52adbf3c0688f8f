"""Self-supervised methods: alignment and uniformity, SSD, and the methods compared with it."""
