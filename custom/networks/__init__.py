"""Networks that MONAI lacks."""

from custom.networks.attention_unet import AttentionUNet
from custom.networks.check_window import check_window
from custom.networks.classic_unet import ClassicUNet
from custom.networks.improved_unet import ImprovedUNet

__all__ = ["AttentionUNet", "ClassicUNet", "ImprovedUNet", "check_window"]
