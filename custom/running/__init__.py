"""How a bundle is found, configured and run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from custom.running.averaged_step import AveragedStep
    from custom.running.predictor import Predictor
    from custom.running.workflow import StrictWorkflow

__all__ = ["AveragedStep", "Predictor", "StrictWorkflow"]
_MODULES = {"AveragedStep": "averaged_step", "Predictor": "predictor", "StrictWorkflow": "workflow"}


def __getattr__(name: str) -> Any:
    """Imports torch and MONAI only when a class is used: `brainmri --help` needs the bundles' names alone."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
