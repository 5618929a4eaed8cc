"""What is measured."""

from custom.metrics.confusion import MEASURES, confusion
from custom.metrics.dice import dice_by_name
from custom.metrics.label_dice import LabelDice

__all__ = ["MEASURES", "LabelDice", "confusion", "dice_by_name"]
