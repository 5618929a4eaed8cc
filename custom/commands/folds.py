"""`brainmri train FOLDER --folds all`: five trainings, out-of-fold scores, and one bundle of what they learned.

Each fold is trained and scored on its validation subjects in OUTPUT_DIR/foldN, in a process of its own, as in
`brainmri compare`: what is finished is not run again, what was stopped goes on, and several processes or SLURM tasks
may share the folds.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import torch

from custom.checkpoints.find import trained_weights
from custom.checkpoints.load import load_checkpoint
from custom.checkpoints.record import read_record, write_record
from custom.commands.fill_bundle import into_bundle
from custom.commands.resumable import STATE, configuration, require_same, train_once
from custom.commands.scoring import SCORES, TEST, VALIDATION, Job, chosen_postprocessing, print_scores
from custom.commands.split import split_of
from custom.datasets import own_folder
from custom.datasets.split import FOLDS
from custom.errors import ConfigError
from custom.files import read_json, written_whole
from custom.locks import run_locked
from custom.networks import ensemble_state
from custom.reading.volumes import participant_of
from custom.running.in_turn import Task, run_in_turn
from custom.running.processes import end_with_parent

FAILED = 0.1  # a network whose Dice is this much below the best fold's has failed, and is not used
OUT_OF_FOLD, CHOICE = "out_of_fold.csv", "ensemble.json"
_OF_ONE_FILE = ("sha256", "date", "dataset_dir", "simulated")  # in a record: of the file itself


def train_folds(job: Job, folds: str) -> None:
    """Trains folds; once all are finished, scores them together and fills the bundle.

    Args:
        job: the bundle and the user's options.
        folds: "all", or numbers separated by commas, for one of several processes that share the work.

    Raises:
        ConfigError: no such fold, or a fold was trained with another configuration.
        DataError: a fold failed; the others are kept.
    """
    possible = possible_folds(job.settings["dataset_dir"])
    chosen = possible if folds == "all" else _numbers(folds, possible)
    if "fold" in job.settings:
        raise ConfigError("Give either --fold or --folds.")
    jobs = {fold: _of_fold(job, fold) for fold in possible}
    for fold in chosen:
        state = jobs[fold].folder / STATE
        if state.is_file():
            config = configuration(jobs[fold].files, jobs[fold].settings)
            require_same(jobs[fold].folder, read_json(state)["configuration"], config)
    tasks = {fold: _task(jobs[fold], fold) for fold in possible}
    run_in_turn([tasks[fold] for fold in chosen])
    if unfinished := [fold for fold in possible if not tasks[fold].finished]:
        print(f"Folds {', '.join(map(str, unfinished))} are not finished. Then run the same command with --folds all.")
        return
    _together(job, jobs)


def possible_folds(folder: str | Path) -> list[int]:
    """The folds that have subjects to train and to validate: 0 to 4, or fewer in a small folder."""
    cases = own_folder.labelled_cases(folder)
    subjects = list(dict.fromkeys(participant_of(case["subject"]) for case in cases))
    others = len(subjects) - len(subjects[::FOLDS])
    return list(range(min(FOLDS, others)))


def _numbers(text: str, possible: Sequence[int]) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or any(not part.isdecimal() or int(part) not in possible for part in parts):
        raise ConfigError(f"--folds must be all or some of {', '.join(map(str, possible))}, got {text!r}.")
    return [int(part) for part in parts]


def _of_fold(job: Job, fold: int) -> Job:
    settings = {**job.settings, "fold": fold, "output_dir": str(job.folder / f"fold{fold}")}
    if read_json(Path(job.files[0])).get("cache_dir"):  # one copy of the scans for all folds
        settings.setdefault("cache_dir", str(job.folder / "cache"))
    return replace(job, settings=settings)


def _task(job: Job, fold: int) -> Task:
    words = json.dumps([str(job.bundle), job.network, job.recipe, dict(job.settings)])
    call = (sys.executable, "-m", "custom.commands.folds", words)
    return Task(f"fold {fold}", job.folder, ("model.pt", f"{VALIDATION}/{SCORES}"), call)


def _together(job: Job, jobs: Mapping[int, Job]) -> None:
    """Scores all folds, chooses networks and post-processing, scores the test subjects and fills the bundle."""
    tables = {fold: pandas.read_csv(own.folder / VALIDATION / SCORES) for fold, own in jobs.items()}
    path = job.folder / OUT_OF_FOLD
    with written_whole(path) as partial:
        pandas.concat([table.assign(fold=fold) for fold, table in tables.items()]).to_csv(partial, index=False)
    print_scores(path, "out-of-fold")
    members = members_of({fold: float(table["dice"].mean()) for fold, table in tables.items()})
    left = [fold for fold in jobs if fold not in members]
    print(f"Networks: the mean of folds {', '.join(map(str, members))}" if len(members) > 1 else f"Fold {members[0]}",
          end=f"; without {left}, more than {FAILED} below the best.\n" if left else ".\n")  # fmt: skip
    postprocessing = chosen_postprocessing([own.folder / VALIDATION for own in jobs.values()])
    network = _join([jobs[fold].folder for fold in members], job)
    choice = {"members": members, "postprocessing": str(postprocessing), "network_def": network}
    known = job.folder / CHOICE
    if not known.is_file() or read_json(known) != choice or not (job.folder / TEST / SCORES).is_file():
        job.score("test", TEST, postprocessing)
        with written_whole(known) as partial:
            partial.write_text(json.dumps(choice, indent=1) + "\n", encoding="utf-8")
    print_scores(job.folder / TEST / SCORES, "test")
    into_bundle(job.folder, job.bundle, postprocessing, network)


def members_of(dice: Mapping[int, float]) -> list[int]:
    """The folds whose networks are used together: all but those far below the best.

    An ensemble has no out-of-fold score of its own (each subject was seen by the other folds' networks), so the folds'
    own scores decide.

    Args:
        dice: of each fold's network on its validation subjects; NaN if no label has a value.
    """
    known = {fold: value for fold, value in dice.items() if value == value}  # noqa: PLR0124  # not NaN
    best = max(known.values(), default=0.0)
    return [fold for fold, value in known.items() if value >= best - FAILED] or list(dice)[:1]


def _join(folders: Sequence[Path], job: Job) -> dict[str, Any]:
    """Writes the weights of one network, or of an ensemble, with their record, and returns the network's definition."""
    target = trained_weights(job.folder)
    records = [read_record(trained_weights(folder)) for folder in folders]
    network: dict[str, Any] = dict(records[0]["options"]["network_def"])
    if len(folders) == 1:
        with written_whole(target) as partial:
            shutil.copyfile(trained_weights(folders[0]), partial)
    else:
        states = [load_checkpoint(trained_weights(folder)) for folder in folders]
        network = {"_target_": "custom.networks.Ensemble", "member": network, "count": len(folders)}
        with written_whole(target) as partial:
            torch.save(ensemble_state(states), partial)
    scores = [record["score"]["value"] for record in records if record.get("score")]
    more = {key: value for key, value in records[0].items() if key not in _OF_ONE_FILE}
    more["options"] = {key: value for key, value in more["options"].items() if key != "fold"}
    more["options"]["network_def"] = network
    more["training"] = sorted({subject for record in records for subject in record["training"]})
    more |= {"validation": [], "members": [folder.name for folder in folders]}
    more["score"] = {"name": "mean of the folds", "value": statistics.mean(scores)} if scores else None
    write_record(target, job.settings["dataset_dir"], **more)
    return network


def train_and_score(job: Job) -> None:
    """One fold, in this process."""
    with run_locked(job.folder):
        split = split_of(job.settings["dataset_dir"], job.settings["fold"])
        train_once(job.files, job.settings, split)
        job.score("validation", VALIDATION)


if __name__ == "__main__":
    from custom.errors import find_cause

    bundle, network, recipe, settings = json.loads(sys.argv[1])
    end_with_parent()
    try:
        train_and_score(Job(Path(bundle), network, recipe, settings))
    except Exception as error:
        if cause := find_cause(error):
            sys.exit(f"brainmri: {cause}")
        raise
