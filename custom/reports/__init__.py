"""Functions that return a matplotlib Figure; the caller saves it."""

from custom.reports.curves import curves_figure
from custom.reports.feature_maps import feature_maps_figure
from custom.reports.segmentation import segmentation_figure

__all__ = ["curves_figure", "feature_maps_figure", "segmentation_figure"]
