"""Stand-in for pydicom-seg, which does not run with pydicom 3. MONAI Label imports it, but nothing here uses it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"pydicom_seg.{name} is not available. Use custom.serving.dicom_seg for DICOM SEG.")
