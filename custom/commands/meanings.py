"""What the arguments and options of the commands mean, as --help prints it.

Options of bundles have their meanings in each bundle's configs/options.json.
"""

from custom import datasets, samples

OPTIONS = {
    "bundle": "a bundle, by any unique part of its name or by its folder",
    "train.bundle": "a folder of labelled scans; or a bundle, by any unique part of its name or by its folder",
    "network": "another network of the bundle (brainmri networks BUNDLE lists them), or the path of a mixin",
    "recipe": "recipes of the bundle; several are separated by commas",
    "folder": "the folder of the data set",
    "output_dir": "the folder to write to",
    "quickstart.folder": "the folder for all files of the quickstart",
    "quickstart.max_epochs": "epochs of the training",
    "sample.folder": "a new folder for the sample",
    "sample.name": f"the data set: {', '.join(samples.NAMES)}",
    "folds": "all, or some of 0 to 4: trains several networks of a folder of labelled scans, and scores them together",
    "plan.folder": "a folder of labelled scans in the form of nnU-Net, the Decathlon or BIDS",
    "plan.output_dir": "a new folder for the bundle (default: FOLDER_bundle)",
    "verify.name": f"a folder of labelled scans, or the data set: {', '.join(datasets.NAMES)}",
    "verify.folder": "the folder of the data set, after its name",
    "prepare.name": "the data set: brats_slices",
    "download.name": f"the data set: {', '.join(datasets.NAMES)}",
    "networks.size": "voxels along each axis of the window instead of the bundle's roi_size",
    "compare.networks": "networks of the bundle, separated by commas",
    "compare.seeds": "seeds, separated by commas: one training of each network for each seed",
    "compare.summary": "write the table and the figure; False for one of several processes that share the work",
    "compare.output_dir": "the folder to write to (default: runs/BUNDLE/comparison)",
    "export.output_dir": "the output_dir of the training (default: runs/BUNDLE)",
    "pack.output_dir": "the output_dir of the training (default: runs/BUNDLE)",
    "export.format": "torchscript or onnx",
    "scans": "scans (NIfTI or other volumes), folders of scans, folders of DICOM files, or .txt lists of these",
    "outputs": "what to write, separated by commas: tissues, structures, mask, brain, probabilities",
    "from_mask": "a brain mask, or a folder of BIDS masks",
    "joint": "segment the scans of one subject together",
    "wide": "write volumes_wide.csv too: one row a scan, with SynthSeg's column names, in cubic mm",
    "report": "write report.html too: one page of all scans, the most unusual first, with a viewer",
    "report.bundle": "a bundle, by any unique part of its name; or the --output_dir of brainmri segment",
    "report.names": "call scans by the names of their files in the page of segmentations",
    "volumes.folder": "the --output_dir of brainmri segment",
    "figure": "draw a figure of each segmentation",
    "studies": "a folder of NIfTI files, or the URL of a DICOMweb server",
    "segment.studies": "the URL of a DICOMweb server: segments its studies instead of files (docs/serving.md)",
    "query": "which studies of the PACS: StudyDate=20260101-, or several such parts joined by &",
    "store": "send the results to the PACS",
    "bundles": "bundles to serve, by names or folders, separated by commas; iseg:vnet for another network",
    "bundles.places": "bundles, or folders of bundles (default: all that came with the project, and BRAINMRI_BUNDLES)",
    "bundles.runs": "the folder of trainings, where weights are looked for too",
    "environment": "the folder of MONAI Label's own Python environment",
    "shell": "bash or zsh",
    "dataset_dir": "the folder of the data set",
}
SAMPLE_OPTIONS = {
    "spacing": "voxel size in mm (all but synthseg_labels and tumor_images)",
    "contrast": "infant or adult (iseg)",
    "edition": "year of the challenge: 2018, 2019 or 2020 (brats), 2013 or 2018 (mrbrains)",
    "labelled": "number of patients with labels (brats, brats_slices, msd)",
    "subjects": "number of subjects, 10 or more (hcp) or 3 or more (ixi)",
    "detail": "detail of the anatomy in mm, 1 to 4 (synthseg_labels)",
    "maps": "number of label maps, 5 or more (synthseg_labels)",
    "images": "number of images, 80 or more (tumor_images)",
    "seed": "seed of the random numbers (all but mni152)",
}
SURVIVAL_OPTIONS = {
    "output_dir": "the folder to write to (default: runs/survival)",
    "labels_dir": "a folder of predicted labels, CASE_*.nii.gz; without it the reference labels are used",
    "target": "another column of days in the table of survival",
    "folds": "number of outer and of inner folds (default: 5)",
    "epochs": "epochs of the small network; 0 leaves it out (default: 60)",
    "seed": "seed of folds, network and bootstrap (default: 0)",
}
# What a command that was stopped leaves, and how to go on.
STOPPED = {
    "pretrain": ". What finished epochs learned is kept; the same command with --resume True goes on with it",
    "train": ". What finished epochs learned is kept; the same command with --resume True goes on with it",
    "compare": ". What finished epochs learned is kept; the same command goes on with it",
    "quickstart": ". What finished epochs learned is kept; the same command goes on with it",
    "segment": ". Finished results are kept; the same command goes on with the other scans",
}


def _label_options() -> dict[str, str]:
    from custom.serving.label_settings import meanings

    return meanings()


VARIABLE_OPTIONS = {  # of commands that take any option
    "label": _label_options,
    "sample": lambda: SAMPLE_OPTIONS,
    "survival": lambda: SURVIVAL_OPTIONS,
}
