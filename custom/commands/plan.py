"""`brainmri plan FOLDER`, and `brainmri train FOLDER`: from labelled scans to a planned, trained and scored bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import custom
from custom.datasets import own_folder
from custom.errors import ConfigError, DataError
from custom.files import read_json
from custom.planning.decide import decide
from custom.planning.measure import measure, notes
from custom.planning.memory import this_machine
from custom.planning.write_bundle import write_bundle
from custom.running.bundles import find_bundle, is_bundle, planned_bundle, read_metadata


def plan(folder: str, output_dir: str | None = None) -> Path:
    """Measures a folder, prints each decision with its reason, and writes the bundle.

    Args:
        folder: of labelled scans, in the form of the Decathlon, nnU-Net or BIDS.
        output_dir: the bundle's folder; by default FOLDER_bundle in the current folder.

    Returns:
        The bundle's folder.

    Raises:
        DataError: a folder that cannot be read or trained on.
        ConfigError: the bundle exists already.
    """
    target = Path(output_dir).expanduser() if output_dir else planned_bundle(folder)
    own_folder.reader_of(folder)
    known = measure(folder)
    machine = this_machine()
    decisions = decide(known, machine)
    print(
        f"{folder}: {len(known.subjects)} subjects, {len(known.cases)} labelled scans. "
        f"Channels: {', '.join(known.channels)}. Labels: {', '.join(known.labels.values())}."
    )
    print(decisions)
    for sentence in notes(known):
        print(f"Note: {sentence}")
    write_bundle(known, decisions, target.absolute())
    print(f"The bundle is in {target}. Its JSON may be edited. {custom.RESEARCH_USE_ONLY}", flush=True)
    return target


def what_to_plan(name: str, dataset_dir: Any = None) -> str:
    """What `brainmri train NAME` plans, or "": a folder of labelled scans, or a planned bundle, which it goes on with.

    A known bundle of this name comes first. Where training it on labelled scans is a planned training, as its
    metadata.json says, the folder is that of its data.
    """
    try:
        bundle = find_bundle(name)
        if read_json(bundle / "configs" / "train.json").get("resume") is True:
            return name
        planned = read_metadata(bundle).get("own_labels", {}).get("planned")
    except (ConfigError, OSError):
        return name if own_folder.is_labelled_folder(name) else ""
    if not (planned and dataset_dir and own_folder.is_labelled_folder(dataset_dir)):
        return ""
    print(f"{dataset_dir} has labelled scans, so this is: brainmri train {dataset_dir}")
    return str(dataset_dir)


def verify(folder: str) -> list[str]:
    """Every problem of a folder of labelled scans, also those that keep it from being trained; and prints its notes."""
    if problems := own_folder.verify(folder):
        return problems
    try:
        known = measure(folder)
    except DataError as error:
        return [str(error)]
    for sentence in notes(known):
        print(f"Note: {sentence}")
    return []


def bundle_of(folder: str) -> Path:
    """The planned bundle of a folder of labelled scans, or of its own name. A missing one is planned now."""
    if not own_folder.is_labelled_folder(folder):
        return find_bundle(folder)
    target = planned_bundle(folder)
    if is_bundle(target):
        return target
    try:
        return plan(folder)
    except (OSError, ConfigError):
        if is_bundle(target):  # another process, that shares the folds, planned it meanwhile
            return target
        raise
