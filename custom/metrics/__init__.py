"""What is measured."""

from custom.metrics.label_dice import LabelDice

__all__ = ["LabelDice"]
