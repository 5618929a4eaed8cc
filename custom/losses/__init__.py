"""Losses that MONAI lacks, or has in a slower form."""

from custom.losses.masked_patches import MaskedPatchLoss
from custom.losses.merged_classes import MergedClasses
from custom.losses.multi_class_dice import MultiClassDiceCELoss, MultiClassDiceLoss
from custom.losses.standardized_mse import StandardizedMSELoss
from custom.losses.subvoxel_cross_entropy import SubvoxelCrossEntropy
from custom.losses.with_auxiliary import WithAuxiliary
from custom.losses.with_side import WithSide

__all__ = [
    "MaskedPatchLoss",
    "MergedClasses",
    "MultiClassDiceCELoss",
    "MultiClassDiceLoss",
    "StandardizedMSELoss",
    "SubvoxelCrossEntropy",
    "WithAuxiliary",
    "WithSide",
]
