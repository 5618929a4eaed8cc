"""What MONAI lacks for this project's bundles. The docstring of each folder says what is in it.

Research use only, not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from custom.running.segment import segment

__all__ = ["RESEARCH_USE_ONLY", "__version__", "bundle_root", "segment", "weights"]
__version__ = "0.1.0"
RESEARCH_USE_ONLY = "Research use only, not a medical device."


def bundle_root(name: str) -> str:
    """For bundle JSON: the folder of the bundle that is being run, see custom.running.bundles.bundle_root."""
    from custom.running import bundles

    return bundles.bundle_root(name)


def weights(output_dir: str, bundle_root: str) -> str:
    """For bundle JSON: the weights to use by default, see custom.checkpoints.find.default_weights."""
    from custom.checkpoints.find import default_weights

    return default_weights(output_dir, bundle_root)


def __getattr__(name: str) -> Any:
    """Imports torch and MONAI only when `segment` is used: bundle JSON and `brainmri --help` need the rest alone."""
    if name != "segment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from custom.running.segment import segment

    return segment
