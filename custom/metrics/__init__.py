"""Measures of segmentations, classifiers and regressions."""

from custom.metrics.bootstrap import Interval, bootstrap_intervals
from custom.metrics.classification import classification_scores, gain, regression_scores
from custom.metrics.confusion import MEASURES, Confusion, confusion
from custom.metrics.dice import dice_by_name
from custom.metrics.label_dice import LabelDice
from custom.metrics.log_likelihood import LogLikelihood
from custom.metrics.stacked import stacked

__all__ = [
    "MEASURES",
    "Confusion",
    "Interval",
    "LabelDice",
    "LogLikelihood",
    "bootstrap_intervals",
    "classification_scores",
    "confusion",
    "dice_by_name",
    "gain",
    "regression_scores",
    "stacked",
]
