"""Inferers: how a network is applied to a whole volume."""

from custom.inferers.cpu_autocast import CPUAutocastInferer
from custom.inferers.foreground import ForegroundInferer

__all__ = ["CPUAutocastInferer", "ForegroundInferer"]
