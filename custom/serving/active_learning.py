"""Which study to label next, and how good predictions are against saved labels."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from custom.checkpoints.record import sha256_of
from custom.errors import MissingDataError, find_cause
from custom.metrics import dice_by_name
from custom.serving.bundles import ServedBundle
from custom.serving.grids import same_grid
from custom.serving.studies import Store

logger = logging.getLogger(__name__)
Infer = Callable[[dict[str, Any]], dict[str, Any]]


class AtRandom(Strategy):
    """An unlabelled study, those that were given lately being less likely."""

    def __init__(self) -> None:
        super().__init__("A study at random")

    def __call__(self, request: Mapping[str, Any], datastore: Store) -> dict[str, Any] | None:
        waiting = datastore.get_unlabeled_images()
        if not waiting:
            return None
        given = [datastore.get_image_info(one).get("strategy", {}).get("random", {}).get("ts", 0) for one in waiting]
        now = time.time()
        return {"id": random.choices(waiting, weights=[max(1.0, now - ts) for ts in given])[0]}


class MostUncertain(Strategy):
    """The unlabelled study that a bundle's network is most uncertain of (custom.serving.bundles.Uncertainty).

    Each study is measured once for each weights and kept with the image; a request measures new ones for at most
    `seconds`, the most uncertain of those that are known is given.
    """

    def __init__(self, bundle: ServedBundle, infer: Infer, seconds: float = 60) -> None:
        super().__init__(f"The study that {bundle.name} is most uncertain of")
        self.bundle, self.infer, self.seconds = bundle, infer, seconds

    def __call__(self, request: dict[str, Any], datastore: Store) -> dict[str, Any] | None:
        waiting = datastore.get_unlabeled_images()
        known = measure(self.bundle, self.infer, datastore, waiting, time.monotonic() + self.seconds)
        if not known:
            return None
        image_id = max(known, key=lambda one: known[one])
        return {"id": image_id, "uncertainty": known[image_id], "measured": len(known), "unlabelled": len(waiting)}


def unseen(bundle: ServedBundle, infer: Infer, image_id: str) -> dict[str, Any] | None:
    """A result that nobody gets to see; None, with a warning, where the study can't be segmented by this bundle."""
    try:
        return infer({"model": bundle.name, "image": image_id, "unseen": True})
    except Exception as error:  # MONAI wraps what transforms raise
        if not (cause := find_cause(error)):
            raise
        logger.warning("%s can't be segmented by %s: %s", image_id, bundle.name, cause)
        return None


def measure(bundle: ServedBundle, infer: Infer, datastore: Store, images: list[str], until: float) -> dict[str, float]:
    """The network's uncertainty of images, measured where it isn't known, until a time.monotonic()."""
    weights = sha256_of(bundle.choose_weights().path)
    key = f"uncertainty {bundle.name}"
    known: dict[str, float] = {}
    for image_id in images:
        info = datastore.get_image_info(image_id).get(key, {})
        if info.get("weights_sha256") != weights and (time.monotonic() < until or not known):
            if (result := unseen(bundle, infer, image_id)) is None:
                continue
            Path(result["file"]).unlink()
            info = {"value": result["params"]["uncertainty"], "weights_sha256": weights}
            datastore.update_image_info(image_id, {key: info})
        if info.get("weights_sha256") == weights:
            known[image_id] = info["value"]
    return known


class MeasureAll(ScoringMethod):
    """Measures the uncertainty of every unlabelled study, for the strategy of that name."""

    def __init__(self, bundle: ServedBundle, infer: Infer) -> None:
        super().__init__(f"Uncertainty of {bundle.name} for every unlabelled study")
        self.bundle, self.infer = bundle, infer

    def __call__(self, request: Mapping[str, Any], datastore: Store) -> dict[str, float]:
        return measure(self.bundle, self.infer, datastore, datastore.get_unlabeled_images(), float("inf"))


class DiceOfPrediction(ScoringMethod):
    """Dice of a bundle's prediction, by the weights that are served now, against each saved label map."""

    def __init__(self, bundle: ServedBundle, infer: Infer) -> None:
        super().__init__(f"Dice of {bundle.name} against saved labels")
        self.bundle, self.infer = bundle, infer

    def __call__(self, request: Mapping[str, Any], datastore: Store) -> dict[str, dict[str, float]]:
        scores = {}
        names = {code: name for name, code in self.bundle.labels.items()}
        for image_id, label in datastore.labelled(list(self.bundle.labels)):
            if (result := unseen(self.bundle, self.infer, image_id)) is None:
                continue
            predicted, saved = (nibabel.load(path) for path in (result["file"], label))
            voxels = np.asarray(predicted.dataobj)
            Path(result["file"]).unlink()
            if not same_grid(predicted, saved):
                logger.warning("%s lies on another grid than %s and isn't scored.", label, image_id)
                continue
            found = dice_by_name(voxels, np.asarray(saved.dataobj), {0: "background"} | names)
            scores[image_id] = {name: value for name, value in found.items() if value == value}  # JSON has no NaN
            datastore.update_image_info(image_id, {f"dice {self.bundle.name}": scores[image_id]})
        if not scores:
            raise MissingDataError(
                f"No study has a saved label map on its grid for {self.bundle.name}: save one first."
            )
        return scores
