"""The functions that MONAI Label imports."""

from typing import Any


def make_grid(*_args: Any, **_kwargs: Any) -> Any:
    """Always fails, because torchvision is not installed."""
    raise NotImplementedError("torchvision is not installed in this environment. See custom/serving/shims/README.md.")


save_image = make_grid
