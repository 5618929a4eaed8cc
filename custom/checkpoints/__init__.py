"""Weights on disk: how they are read, found, described and started from."""
