"""Which study to label next, and how good predictions are against saved labels."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from custom.checkpoints.record import sha256_of
from custom.errors import MissingDataError, find_cause
from custom.metrics import dice_by_name
from custom.reading.volumes import open_volume
from custom.serving.bundles import ServedBundle
from custom.serving.grids import same_grid
from custom.serving.progress import CancelledError
from custom.serving.studies import Store

logger = logging.getLogger(__name__)
Infer = Callable[[dict[str, Any]], dict[str, Any]]


class AtRandom(Strategy):
    """A random unlabelled study; studies that were given recently are less likely."""

    def __init__(self) -> None:
        super().__init__("A random study")

    def __call__(self, _request: Mapping[str, Any], datastore: Store) -> dict[str, Any] | None:
        """{"id": the study}; None if all studies are labelled."""
        unlabelled = datastore.get_unlabeled_images()
        if not unlabelled:
            return None
        infos = datastore.get_infos(unlabelled)
        now = time.time()
        given = [infos[image_id].get("strategy", {}).get("random", {}).get("ts", 0) for image_id in unlabelled]
        weights = [max(1.0, now - seconds) for seconds in given]
        return {"id": random.choices(unlabelled, weights=weights)[0]}


class MostUncertain(Strategy):
    """The unlabelled study of which a bundle's network is most uncertain (custom.serving.uncertainty.uncertainty_of).

    Each study is measured once for the same weights, and the value is stored with the image. One request measures new
    studies for at most `seconds`, and returns the most uncertain study of those measured so far.
    """

    def __init__(self, bundle: ServedBundle, infer: Infer, seconds: float = 60) -> None:
        super().__init__(f"The study of which {bundle.name} is most uncertain")
        self.bundle, self.infer, self.seconds = bundle, infer, seconds

    def __call__(self, _request: dict[str, Any], datastore: Store) -> dict[str, Any] | None:
        """{"id": the study, "uncertainty", "measured" and "unlabelled" studies}; None if no study can be measured."""
        unlabelled = datastore.get_unlabeled_images()
        measured = measure(self.bundle, self.infer, datastore, unlabelled, time.monotonic() + self.seconds)
        if not measured:
            return None
        image_id = max(measured, key=lambda name: measured[name])
        return {
            "id": image_id,
            "uncertainty": measured[image_id],
            "measured": len(measured),
            "unlabelled": len(unlabelled),
        }


def infer_unseen(bundle: ServedBundle, infer: Infer, image_id: str, measured: bool = False) -> dict[str, Any] | None:
    """A result that no user sees; None, with a warning in the log, if the bundle cannot segment the study."""
    try:
        return infer({"model": bundle.name, "image": image_id, "unseen": True, "uncertainty": measured})
    except Exception as error:  # MONAI wraps what transforms raise
        if not (cause := find_cause(error)) or isinstance(cause, CancelledError):
            raise
        logger.warning("%s cannot segment %s: %s", bundle.name, image_id, cause)
        return None


def measure(bundle: ServedBundle, infer: Infer, datastore: Store, images: list[str], until: float) -> dict[str, float]:
    """The network's uncertainty of images.

    Args:
        bundle: whose network.
        infer: segments an image of the studies.
        datastore: stores each value with its image.
        images: their ids.
        until: stop measuring new images at this time.monotonic(), but after one image at the earliest.

    Returns:
        {image id: uncertainty in bits} of the images measured now or before with the same weights.
    """
    weights = sha256_of(bundle.choose_weights().path)
    key = f"uncertainty {bundle.name}"
    values: dict[str, float] = {}
    infos = datastore.get_infos(images)
    for image_id in images:
        info = infos[image_id].get(key, {})
        if info.get("weights_sha256") != weights and (time.monotonic() < until or not values):
            if (result := infer_unseen(bundle, infer, image_id, measured=True)) is None:
                continue
            Path(result["file"]).unlink()
            info = {"value": result["params"]["uncertainty"], "weights_sha256": weights}
            datastore.update_image_info(image_id, {key: info})
        if info.get("weights_sha256") == weights:
            values[image_id] = info["value"]
    return values


class MeasureAll(ScoringMethod):
    """Measures the uncertainty of every unlabelled study, for the strategy of the same name."""

    def __init__(self, bundle: ServedBundle, infer: Infer) -> None:
        super().__init__(f"Uncertainty of {bundle.name} for every unlabelled study")
        self.bundle, self.infer = bundle, infer

    def __call__(self, _request: Mapping[str, Any], datastore: Store) -> dict[str, float]:
        """{image id: uncertainty in bits}."""
        return measure(self.bundle, self.infer, datastore, datastore.get_unlabeled_images(), float("inf"))


class DiceOfPrediction(ScoringMethod):
    """Dice of a bundle's prediction, with the weights that are served now, against each saved label map."""

    def __init__(self, bundle: ServedBundle, infer: Infer) -> None:
        super().__init__(f"Dice of {bundle.name} against saved labels")
        self.bundle, self.infer = bundle, infer

    def __call__(self, _request: Mapping[str, Any], datastore: Store) -> dict[str, dict[str, float]]:
        """{image id: {label: Dice, 0 to 1}}; labels that neither map has are left out.

        Raises:
            MissingDataError: no saved label map could be scored.
        """
        scores = {}
        names = {code: name for name, code in self.bundle.labels.items()}
        for image_id, label in datastore.labelled(self.bundle.labels):
            if (result := infer_unseen(self.bundle, self.infer, image_id)) is None:
                continue
            predicted, saved = open_volume(result["file"]), open_volume(label)
            voxels = np.asarray(predicted.dataobj)
            Path(result["file"]).unlink()
            if not same_grid(predicted, saved):
                logger.warning("%s is not scored, because its grid differs from that of %s.", label, image_id)
                continue
            dice = dice_by_name(voxels, np.asarray(saved.dataobj), {0: "background"} | names)
            scores[image_id] = {name: value for name, value in dice.items() if not math.isnan(value)}
            datastore.update_image_info(image_id, {f"dice {self.bundle.name}": scores[image_id]})
        if not scores:
            raise MissingDataError(
                f"No study has a saved label map of {self.bundle.name} on its own grid. Save a label map first."
            )
        return scores
