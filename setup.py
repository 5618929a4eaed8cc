"""The packages of the wheel; all other metadata is in pyproject.toml.

pyproject.toml can either search for packages or list them. This file does both: it searches for `custom`, and adds the
folder bundles/ as the package `custom.bundles`.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["custom", "custom.*"]), "custom.bundles"],
    package_dir={"custom": "custom", "custom.bundles": "bundles"},
)
