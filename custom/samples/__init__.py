"""One module per data set: writes a small sample of it in exactly that layout."""

NAMES = ("brats", "brats_slices", "hcp", "iseg", "mni152", "msd", "synthseg_labels", "tumor_images")  # have write()
