"""Simple methods with which the networks are compared."""
