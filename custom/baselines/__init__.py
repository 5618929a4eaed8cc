"""Simple methods that every network is compared with."""
