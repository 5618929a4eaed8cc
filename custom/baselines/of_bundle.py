"""Baselines on the data, split and preprocessing of a bundle."""

from __future__ import annotations

import statistics
from typing import Any

from monai.transforms import Compose

from custom import RESEARCH_USE_ONLY
from custom.baselines.flair_threshold import whole_tumor_by_flair
from custom.datasets import brain_tumors
from custom.running.workflow import StrictWorkflow


def flair_threshold(files: list[str], **overrides: Any) -> dict[str, float]:
    """Prints the whole-tumor Dice of one FLAIR threshold in each test patient, and returns them.

    Args:
        files: the tumor bundle's train.json and mixins.
        overrides: settings of the bundle, for instance dataset_dir.
    """
    parser = StrictWorkflow(files, logging_file=False, workflow_type="train", **overrides).parser
    dataset_dir, fold = parser.get_parsed_content("dataset_dir"), parser.get_parsed_content("fold")
    training, test = (brain_tumors.datalist(dataset_dir, split, fold) for split in ("training", "test"))
    load = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    threshold, scores = whole_tumor_by_flair(training, test, load)
    print(
        f"FLAIR above {threshold:.2f} standard deviations, fitted on {len(training)} training patients. "
        "Dice of the whole tumor:"
    )
    for subject, dice in scores.items():
        print(f"{subject}  {dice:.3f}")
    spread = f" +- {statistics.stdev(scores.values()):.3f}" if len(scores) > 1 else ""
    print(f"mean  {statistics.mean(scores.values()):.3f}{spread}, n = {len(scores)}. {RESEARCH_USE_ONLY}")
    return scores
