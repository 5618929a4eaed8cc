"""Losses that MONAI lacks, or has in a slower form."""

from custom.losses.multi_class_dice import MultiClassDiceCELoss, MultiClassDiceLoss

__all__ = ["MultiClassDiceCELoss", "MultiClassDiceLoss"]
