"""Stands in for pydicom-seg, which doesn't run with pydicom 3: MONAI Label imports it, this project doesn't use it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"pydicom_seg.{name}: DICOM SEG is read and written by custom.serving.dicom_seg here.")
