"""Does the HCP bundle's CNN find a visible cause, and nothing if there is none?

    python scripts/benchmarks/hcp_leaks.py WORK_DIR [--seeds 0 1 2] [--subjects 100] [--max_epochs 30]

Each seed writes another sample (`brainmri sample hcp`), trains on it with that seed and scores its test split, for
Ventricles, whose cause is in the anatomy, and for Coin, which is drawn by chance. Prints the ROC AUC
of pairs within a sample, with a 95% interval from bootstrap samples of families: Coin's must hold 0.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas

from custom.baselines.nested_cv import auc_interval
from custom.datasets import hcp
from custom.running.bundles import config_files
from custom.running.workflow import run
from custom.samples import hcp as sample


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("work_dir", type=Path)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--subjects", type=int, default=100)
    arguments.add_argument("--max_epochs", type=int, default=30)
    options = arguments.parse_args()
    rows = []
    for target in ("Ventricles", "Coin"):
        tables = [predictions(options, target, seed).assign(sample=seed) for seed in options.seeds]
        table = pandas.concat(tables)
        families = (table["sample"].astype(str) + " " + table["group"]).tolist()
        positive, score = (table["label"] == table["positive"]).to_numpy(int), table["score"].to_numpy()
        auc, low, high = auc_interval(positive, score, table["sample"].to_numpy(), families)
        rows.append(f"| {target} | {auc:.3f} ({low:.3f}, {high:.3f}) | {len(table)} | {len(set(families))} |")
    print(f"seeds {options.seeds}, {options.subjects} subjects each\n| target | AUC (95% interval) | n | families |")
    print("\n".join(rows))


def predictions(options: argparse.Namespace, target: str, seed: int) -> pandas.DataFrame:
    """The test split's predictions.csv, with the second class in "positive" and its probability in "score"."""
    folder = sample.write(options.work_dir / f"sample-{seed}", subjects=options.subjects, seed=seed)
    out = options.work_dir / f"{target}-{seed}"
    settings: dict[str, Any] = {"dataset_dir": str(folder), "output_dir": str(out), "target": target, "seed": seed}
    settings["cache_dir"] = str(options.work_dir / "cache")
    files = config_files("hcp", "train.json")
    run("training", files, **settings, max_epochs=options.max_epochs, resume=True)
    run("evaluating", [*files, *config_files("hcp", "evaluate.json")], **settings)
    positive = hcp.classes(folder, target)[1]
    table = pandas.read_csv(out / "evaluation/predictions.csv", dtype={"label": str})
    return table.assign(score=table[f"p_{positive}"], positive=positive)


if __name__ == "__main__":
    main()
