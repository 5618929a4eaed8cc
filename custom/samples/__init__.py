"""One module per data set: writes a small sample of it in exactly that layout."""

NAMES = (  # have write()
    "brats",
    "brats_slices",
    "hcp",
    "iseg",
    "ixi",
    "mni152",
    "mrbrains",
    "msd",
    "synthseg_labels",
    "tumor_images",
)
