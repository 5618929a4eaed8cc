"""What is measured."""

from custom.metrics.dice import dice_by_name
from custom.metrics.label_dice import LabelDice

__all__ = ["LabelDice", "dice_by_name"]
