"""Networks that MONAI lacks."""

from custom.networks.check_window import check_window

__all__ = ["check_window"]
