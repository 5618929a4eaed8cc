"""`brainmri train FOLDER`: plans if there is no plan, trains, scores the test subjects, leaves a complete bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.commands.fill_bundle import into_bundle
from custom.commands.folds import train_folds
from custom.commands.options import typed
from custom.commands.plan import bundle_of
from custom.commands.resumable import train_once
from custom.commands.scoring import SCORES, TEST, VALIDATION, Job, chosen_postprocessing, print_scores
from custom.commands.split import print_split, split_of
from custom.datasets import own_folder
from custom.files import read_json
from custom.running.bundles import config_files, mixins
from custom.running.processes import is_first


def train_folder(folder: str, network: str | None, recipe: Any, folds: str, overrides: Mapping[str, Any]) -> Path:
    """Trains the planned bundle of a folder of labelled scans. The same call again goes on, or repeats nothing.

    Args:
        folder: of labelled scans, whose bundle is planned now if it does not exist; or a planned bundle.
        network: a mixin, by name or path, or None for the planned network.
        recipe: as custom.running.bundles.mixins takes it.
        folds: "" for one training; "all" or some of 0 to 4, separated by commas, for cross-validation.
        overrides: options of train.json, as typed.

    Returns:
        The bundle, whose models/model.pt are the trained weights.

    Raises:
        DataError: a folder that cannot be read or trained on.
        ConfigError: the output_dir holds a training with another configuration.
    """
    bundle = bundle_of(folder)
    files = config_files(str(bundle), "train.json", *mixins(str(bundle), network, recipe))
    data = folder if own_folder.is_labelled_folder(folder) else read_json(Path(files[0]))["dataset_dir"]
    job = Job(bundle, network, recipe, typed(files, {"dataset_dir": data, **overrides}))
    if folds:
        train_folds(job, folds)
        return bundle
    split = split_of(job.settings["dataset_dir"], int(job.settings.get("fold", 0)))
    print_split(split)
    trained = train_once(files, job.settings, split)
    if trained or not (job.folder / TEST / SCORES).is_file():
        job.score("validation", VALIDATION)
        postprocessing = chosen_postprocessing([job.folder / VALIDATION])
        job.score("test", TEST, postprocessing)
    print_scores(job.folder / TEST / SCORES, "test")
    if is_first():
        into_bundle(job.folder, bundle, chosen_postprocessing([job.folder / VALIDATION]))
    return bundle
