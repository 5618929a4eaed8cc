"""How a network meets a whole volume."""

from custom.inferers.cpu_autocast import CPUAutocastInferer
from custom.inferers.foreground import ForegroundInferer

__all__ = ["CPUAutocastInferer", "ForegroundInferer"]
