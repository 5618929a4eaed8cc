"""Several networks under one configuration: trained, scored, and put into one table and one figure.

Each network and seed is trained and evaluated in a process of its own, in OUTPUT_DIR/NETWORK-seedN; what is finished is
not run again, and what was stopped goes on after its last epoch. These processes end with the command. Several commands
may share an OUTPUT_DIR: a folder takes one run at a time.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch

import custom
from custom.commands.options import as_path, convert, typed
from custom.errors import ConfigError
from custom.files import read_json, written_whole
from custom.locks import run_locked
from custom.networks.cost import count_parameters, gflops
from custom.reports.comparison import comparison_figure
from custom.reports.of_run import save_figure
from custom.running.bundles import config_files, find_bundle, mixins, read_metadata
from custom.running.in_turn import Task, run_in_turn
from custom.running.processes import end_with_parent
from custom.running.workflow import StrictWorkflow, run

COST, SCORES = "cost.json", "evaluation/scores.csv"  # of one network and seed: written after training, and last


def compare(
    bundle: str,
    networks: Sequence[str],
    seeds: Sequence[int],
    output_dir: Path,
    recipe: str | None = None,
    summary: bool = True,
    **overrides: Any,
) -> list[Path]:
    """Trains and scores each network with each seed, and writes comparison.csv, by_label.csv and comparison.png.

    comparison.csv has a row for each network: parameters, GFLOPs of a window forward, seconds an epoch, peak memory of
    training (of the process on the CPU, of the allocator on CUDA), and of each measure the mean over the test subjects
    (of each subject its mean over labels) and seeds, its standard deviation over subjects and over seeds, and n. A
    classifier has no measures of one subject: its measures are over all subjects, with the means of their intervals'
    ends.

    Args:
        bundle: any part of a bundle's name.
        networks: names of its configs/networks, or "default".
        seeds: one training each.
        output_dir: where all runs and the results go.
        recipe: one of the bundle's, several as 'a,b', or None.
        summary: write the table and the figure; False for one of several processes that share the work.
        overrides: settings of train.json for all.

    Returns:
        The three files.

    Raises:
        ConfigError: an unknown network, or other settings than output_dir's earlier runs had.
        DataError: a run failed; the others are kept.
    """
    _check_plan(bundle, networks, seeds, output_dir, recipe, overrides)
    tasks = []
    for network in networks:
        for seed in seeds:
            folder = _folder(output_dir, network, seed)
            words = (bundle, network, str(seed), str(folder), recipe or "", json.dumps(overrides))
            call = (sys.executable, "-m", "custom.commands.compare", *words)
            tasks.append(Task(f"{network} with seed {seed}", folder, (COST, SCORES), call))
    run_in_turn(tasks, wait=summary)
    return _summarise(bundle, networks, seeds, output_dir) if summary else []


def compare_call(
    bundle: str,
    networks: str,
    seeds: str,
    output_dir: str | None,
    recipe: str | None,
    summary: bool,
    overrides: Mapping[str, Any],
) -> None:
    """`brainmri compare` as it is called: names and seeds as typed, separated by commas; prints what it wrote."""
    numbers = convert(seeds, list)
    names = [name.strip() for name in networks.strip("[]").split(",") if name.strip()]
    folder = Path(as_path(output_dir or "") or f"runs/{find_bundle(bundle).name}/comparison").expanduser()
    settings = typed(config_files(bundle, "train.json", *mixins(bundle, None, recipe)), overrides)
    given = numbers if isinstance(numbers, list) else [numbers]
    for path in compare(bundle, names, given, folder, recipe, summary, **settings):
        print(path)
    print(custom.RESEARCH_USE_ONLY)


def _check_plan(
    bundle: str,
    networks: Sequence[str],
    seeds: Sequence[Any],
    output_dir: Path,
    recipe: str | None,
    overrides: Mapping[str, Any],
) -> None:
    """Raises ConfigError for a mistake; else writes the settings, or compares them with those of earlier runs."""
    if unknown := [key for key in ("seed", "output_dir", "resume") if key in overrides]:
        raise ConfigError(f"{unknown[0]} is set for each run: give compare --seeds and --output_dir.")
    if wrong := [seed for seed in seeds if not isinstance(seed, int) or isinstance(seed, bool)]:
        raise ConfigError(f"seeds must be whole numbers, got {wrong[0]!r}.")
    for network in networks:  # a mistake shows before anything is written
        StrictWorkflow(_files(bundle, network, recipe), logging_file=False, workflow_type="train", **overrides)
    settings = {"bundle": bundle, "recipe": recipe, "settings": {key: str(value) for key, value in overrides.items()}}
    plan = output_dir / "comparison.json"
    if not plan.is_file():
        with written_whole(plan) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
    if (earlier := read_json(plan)) != settings:
        raise ConfigError(f"{output_dir} holds a comparison with {earlier}. Use a new output_dir.")


def _files(bundle: str, network: str, recipe: str | None) -> list[str]:
    return config_files(bundle, "train.json", *mixins(bundle, None if network == "default" else network, recipe))


def _folder(output_dir: Path, network: str, seed: int) -> Path:
    return output_dir / f"{network}-seed{seed}"


def _train_and_score(
    bundle: str, network: str, seed: int, folder: Path, recipe: str, overrides: dict[str, Any]
) -> None:
    """One network and seed, in this process."""
    files = _files(bundle, network, recipe)
    settings = overrides | {"seed": seed, "output_dir": str(folder)}
    if not (folder / COST).is_file():
        trained = run("training", files, **settings, resume=True)
        on_cuda = torch.device(trained.parser.get_parsed_content("device")).type == "cuda"
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
        peak = torch.cuda.max_memory_allocated() if on_cuda else kilobytes * (1 if sys.platform == "darwin" else 1024)
        steps_an_epoch = trained.parser.get_parsed_content("train#trainer").state.epoch_length
        own = trained.parser.get_parsed_content("network_def")
        channels = trained.parser.get_parsed_content("in_channels")
        window = [1, channels, *trained.parser.get_parsed_content("roi_size")]
        cost = {
            "parameters": count_parameters(own),
            "gflops": gflops(own, window),
            "seconds_an_epoch": _seconds_an_epoch(folder / "tensorboard", steps_an_epoch),
            "peak_memory_mb": round(peak / 1e6),
            "device": torch.cuda.get_device_name() if on_cuda else f"CPU, {torch.get_num_threads()} threads",
        }
        with written_whole(folder / COST) as partial:
            partial.write_text(json.dumps(cost, indent=1) + "\n")
    run("evaluating", [*files, *config_files(bundle, "evaluate.json")], **settings)


def _seconds_an_epoch(log_dir: Path, steps_an_epoch: int) -> float:
    """The median over epochs, from the times of the training's steps; validation isn't in it."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    times: dict[int, float] = {}
    for path in sorted(log_dir.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime):
        for event in EventFileLoader(str(path)).Load():
            if any(value.tag == "training/loss" for value in event.summary.value):
                times[event.step] = event.wall_time
    of_steps = [times[step] - times[step - 1] for step in times if (step - 1) % steps_an_epoch and step - 1 in times]
    return round(statistics.median(of_steps) * steps_an_epoch, 3) if of_steps else float("nan")


def _row(
    network: str, costs: Sequence[Mapping[str, Any]], scores: pandas.DataFrame, measures: Sequence[str]
) -> dict[str, Any]:
    """The table's row of one network.

    Args:
        network: its name.
        costs: a cost.json for each seed.
        scores: of this network, a row for each subject, label and seed.
        measures: columns of the scores.
    """
    row: dict[str, Any] = {"network": network, "seeds": len(costs)}
    for key, value in costs[0].items():
        if key in ("parameters", "gflops"):
            row[key] = value
        elif key != "device":
            row[key] = round(statistics.median(cost[key] for cost in costs), 3)
    subjects = scores.groupby(["seed", "subject"])[list(measures)].mean()
    row["n"] = len(subjects) if "n" not in scores else int(scores["n"].max()) * len(costs)
    for name in measures:
        row |= {
            name: subjects[name].mean(),
            f"{name}_subject_std": subjects[name].groupby("subject").mean().std(),
            f"{name}_seed_std": subjects[name].groupby("seed").mean().std(),
        }
    return row


def _summarise(bundle: str, networks: Sequence[str], seeds: Sequence[int], output_dir: Path) -> list[Path]:
    has_subjects = read_metadata(find_bundle(bundle))["kind"] == "segmentation"  # classes are scored over all subjects
    tables, costs = [], {}
    for network in networks:
        for seed in seeds:
            folder = _folder(output_dir, network, seed)
            own = pandas.read_csv(folder / SCORES).assign(network=network, seed=seed)
            tables.append(own if has_subjects else own.assign(subject="all"))
            costs[network, seed] = json.loads((folder / COST).read_text(encoding="utf-8"))
    scores = pandas.concat(tables)
    measures = [name for name in scores.columns if name not in ("subject", "label", "n", "network", "seed")]
    rows = [
        _row(network, [costs[network, seed] for seed in seeds], scores[scores["network"] == network], measures)
        for network in networks
    ]
    by_label = scores.groupby(["network", "label"], sort=False)[measures].agg(["mean", "std", "count"])
    by_label.columns = ["_".join(pair) for pair in by_label.columns]
    table = pandas.DataFrame(rows).dropna(axis=1, how="all")
    paths = [output_dir / "comparison.csv", output_dir / "by_label.csv"]
    for path, frame, index in zip(paths, (table, by_label), (False, True), strict=True):
        with written_whole(path) as partial:
            frame.to_csv(partial, index=index, float_format="%.4f")
    print(table.to_string(index=False, float_format="%.3f"))
    figure = comparison_figure(scores, table, measures[0], next(iter(costs.values()))["device"])
    return [*paths, save_figure(figure, output_dir / "comparison.png")]


if __name__ == "__main__":
    from custom.errors import find_cause

    name, network, seed, folder, recipe, overrides = sys.argv[1:]
    end_with_parent()
    try:
        with run_locked(Path(folder)):
            _train_and_score(name, network, int(seed), Path(folder), recipe, json.loads(overrides))
    except Exception as error:
        if cause := find_cause(error):
            sys.exit(f"brainmri: {cause}")
        raise
