"""`brainmri baseline`: the simple method that a bundle's networks are compared with."""

from __future__ import annotations

from typing import Any

from custom.errors import ConfigError


def _hcp_baselines(files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.hcp import HCPOptions, hcp_baselines

    if "regression" in str(recipe):
        raise ConfigError("The baselines of hcp take a regression by --kind regression. Leave the recipe out.")
    hcp_baselines(files, HCPOptions.of(settings))


def _flair_threshold(files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.of_bundle import flair_threshold

    if "intensity_" in str(recipe):
        raise ConfigError(
            f"The FLAIR threshold is in standard deviations of the brain's intensities. Leave the recipe {recipe} out."
        )
    flair_threshold(files, **settings)


def _pooled_intensities(files: list[str], _recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.pooled_intensities import pooled_intensities

    pooled_intensities(files, **settings)


BASELINES = {
    "brain_mri_tumor_classification": _pooled_intensities,
    "brats_mri_tumor_segmentation": _flair_threshold,
    "hcp_mri_classification": _hcp_baselines,
}


def baseline(name: str, files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    """Runs the baseline of a bundle.

    Args:
        name: the bundle's.
        files: its train.json and mixins.
        recipe: the recipes' names, as the user gave them.
        settings: overrides of the config files' settings, or the baseline's own options.

    Raises:
        ConfigError: the bundle has no baseline, or the baseline does not have such an option.
    """
    if name not in BASELINES:
        raise ConfigError(f"{name} has no baseline. Bundles with one: {', '.join(BASELINES)}.")
    BASELINES[name](files, recipe, settings)
