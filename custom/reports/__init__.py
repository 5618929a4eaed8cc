"""Functions that return a matplotlib Figure or an animation's frames; the caller saves them."""

from custom.reports.attention_rollout import attention_rollout
from custom.reports.contours import contour_figure
from custom.reports.curves import curves_figure
from custom.reports.feature_maps import feature_maps_figure
from custom.reports.overlay import animation, overlay_figure, save_animation
from custom.reports.reconstructions import reconstruction_figure
from custom.reports.segmentation import segmentation_figure
from custom.reports.slices import attention_animation, attention_figure, channels_figure

__all__ = [
    "animation",
    "attention_animation",
    "attention_figure",
    "attention_rollout",
    "channels_figure",
    "contour_figure",
    "curves_figure",
    "feature_maps_figure",
    "overlay_figure",
    "reconstruction_figure",
    "save_animation",
    "segmentation_figure",
]
