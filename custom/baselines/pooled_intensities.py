"""The simplest classifier of images: logistic regression on an image of 8x8 means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from custom import RESEARCH_USE_ONLY
from custom.datasets import tumor_images
from custom.files import set_aside, written_whole
from custom.metrics import classification_scores
from custom.running.workflow import StrictWorkflow

SIDE = 8  # pooled pixels along each axis


def pooled(images: Sequence[torch.Tensor]) -> np.ndarray:
    """(n, 64): images averaged over channels and to 8x8 fields.

    Args:
        images: (C, H, W) each, sizes may differ.
    """
    grey = [torch.as_tensor(image).float().mean(dim=0)[None] for image in images]
    return torch.stack([torch.nn.functional.adaptive_avg_pool2d(image, SIDE) for image in grey]).flatten(1).numpy()


def pooled_intensities(files: list[str], **overrides: object) -> pandas.DataFrame:
    """Trains on the training split, scores on the test split, and writes output_dir/baseline/scores.csv.

    Args:
        files: the tumor classification bundle's train.json and mixins, whose data, split and preprocessing are used.
        overrides: settings of the bundle, for instance dataset_dir.

    Returns:
        The table, as custom.metrics.classification_scores gives it.
    """
    parser = StrictWorkflow(files, logging_file=False, workflow_type="train", **overrides).parser
    names = ("dataset_dir", "fold", "partition", "class_names", "cache_dir")
    dataset_dir, *settings = (parser.get_parsed_content(name) for name in names)
    load = parser.get_parsed_content("validate#preprocessing")
    splits = {}
    for split in ("training", "test"):
        items = tumor_images.datalist(dataset_dir, split, *settings)
        splits[split] = items, pooled([load({"image": item["image"]})["image"] for item in items])
    classes = parser.get_parsed_content("classes")
    scores, table = fit_and_score(*splits["training"], *splits["test"], classes)
    folder = Path(parser.get_parsed_content("output_dir")) / "baseline"
    set_aside(folder, ["scores.csv", "predictions.csv"])
    for name, frame in {"scores": scores, "predictions": table}.items():
        with written_whole(folder / f"{name}.csv") as partial:
            frame.to_csv(partial, index=False, float_format="%.6f")
    print(scores.to_string(index=False, float_format="%.3f", na_rep=""))
    counts = {split: len(items) for split, (items, _) in splits.items()}
    print(f"Logistic regression on {SIDE}x{SIDE} means, images: {counts}; {folder}/scores.csv. {RESEARCH_USE_ONLY}")
    return scores


def fit_and_score(
    training: Sequence[Mapping[str, Any]],
    training_features: np.ndarray,
    test: Sequence[Mapping[str, Any]],
    test_features: np.ndarray,
    classes: dict[int, str],
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Scores of the test items, and their predictions as custom.handlers.Predictions writes them.

    Args:
        training: items of a datalist.
        training_features: (n, features).
        test: items of a datalist.
        test_features: (n, features).
        classes: {0: "glioma", ...}; the training items have all of them.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced"))
    model.fit(training_features, [item["label"] for item in training])
    probabilities, labels = model.predict_proba(test_features), np.array([item["label"] for item in test])
    groups = [item["group"] for item in test]
    table = pandas.DataFrame(
        {
            "subject": [item["subject"] for item in test],
            "group": groups,
            "label": [classes[code] for code in labels],
            "prediction": [classes[code] for code in probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1),
        }
        | {f"p_{name}": probabilities[:, code] for code, name in classes.items()}
    )
    return classification_scores(labels, probabilities, classes, groups), table
