"""MONAI Label serves this project's bundles to 3D Slicer and OHIF, on files and on a PACS.

It runs in an environment of its own (custom.serving.environment), by `brainmri label` or
`python -m custom.serving`. Research use only, not a medical device.
"""
