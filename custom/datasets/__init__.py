"""One module per data set: where its files lie, and what its labels mean."""

NAMES = (  # have verify()
    "bids",
    "brain_tumors",
    "brats",
    "brats_slices",
    "freesurfer",
    "hcp",
    "iseg",
    "ixi",
    "mrbrains",
    "msd",
    "synthseg_labels",
    "tumor_images",
)
