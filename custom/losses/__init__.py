"""Losses that MONAI lacks, or has in a slower form."""

from custom.losses.multi_class_dice import MultiClassDiceCELoss, MultiClassDiceLoss
from custom.losses.standardized_mse import StandardizedMSELoss
from custom.losses.with_auxiliary import WithAuxiliary

__all__ = ["MultiClassDiceCELoss", "MultiClassDiceLoss", "StandardizedMSELoss", "WithAuxiliary"]
