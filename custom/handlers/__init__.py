"""Ignite handlers, which act at a run's start, at each step or epoch, and at its end."""

from custom.handlers.calibrate import Calibrate
from custom.handlers.checkpoint import Checkpoint
from custom.handlers.early_stop import EarlyStop
from custom.handlers.epoch_log import EpochLog
from custom.handlers.epoch_seed import EpochSeed
from custom.handlers.load_weights import LoadWeights
from custom.handlers.postprocessing_trials import PostprocessingTrials
from custom.handlers.predictions import ClassificationScores, Predictions
from custom.handlers.reconstructions import Reconstructions
from custom.handlers.run_files import WritesFiles, run_files
from custom.handlers.segmentation_scores import SegmentationScores
from custom.handlers.tensorboard import TensorBoard
from custom.handlers.validation_loss import ValidationLoss

__all__ = [
    "Calibrate",
    "Checkpoint",
    "ClassificationScores",
    "EarlyStop",
    "EpochLog",
    "EpochSeed",
    "LoadWeights",
    "PostprocessingTrials",
    "Predictions",
    "Reconstructions",
    "SegmentationScores",
    "TensorBoard",
    "ValidationLoss",
    "WritesFiles",
    "run_files",
]
