"""From a folder of labelled scans to a bundle: measure the folder, decide, write the bundle."""
