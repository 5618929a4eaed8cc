"""Stand-in for torchvision, because no CPU build matches torch 2.13.0. MONAI Label imports two of its functions."""
