"""MONAI Label serves the bundles of this project to 3D Slicer and OHIF, for files and for a PACS.

The server has its own environment (custom.serving.environment). It starts with `brainmri label` or
`python -m custom.serving`. Research use only, not a medical device.
"""
