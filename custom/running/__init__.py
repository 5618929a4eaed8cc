"""How a bundle is run."""

from custom.running.averaged_step import AveragedStep
from custom.running.segmenter import Segmenter

__all__ = ["AveragedStep", "Segmenter"]
