"""Weights on disk: finding, reading and describing them, and starting a training from them."""
