"""One module per data set: writes a small sample of it in exactly that layout."""
