"""Small pieces about torch itself: determinism, what a device is worth, compatibility of torchvision."""
