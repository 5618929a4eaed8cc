"""Stands in for torchvision, of which no CPU build matches torch 2.13.0: MONAI Label imports two functions of it."""
