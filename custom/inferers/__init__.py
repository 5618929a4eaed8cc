"""How a network meets a whole volume."""

from custom.inferers.cpu_autocast import CPUAutocastInferer

__all__ = ["CPUAutocastInferer"]
