"""Networks of the tumor classification bundle in 5-fold cross-validation, beside logistic regression on 8x8 means.

    python scripts/benchmarks/tumor_images.py DATA_DIR WORK_DIR [--networks custom_cnn densenet121] [--folds 0 1 2 3 4]
        [--classes glioma meningioma pituitary] [--max_epochs 30] [--batch_size 16] [--seeds 0]

Images that belong together (near-duplicates, groups.csv) are in one fold. Each network is trained and scored by
`brainmri`, in WORK_DIR/NETWORK-seedN-foldN; finished trainings are not repeated. Prints the scores of all folds' test
images together, with intervals over groups, without and with the temperature of each fold's validation images, the
minutes of all trainings, and how far each network is above logistic regression on the same images.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas

from custom.baselines.pooled_intensities import pooled_intensities
from custom.metrics import classification_scores, gain
from custom.running.bundles import config_files

SHOWN = ("balanced_accuracy", "accuracy", "auc")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data_dir", type=Path)
    arguments.add_argument("work_dir", type=Path)
    arguments.add_argument("--networks", nargs="+", default=["custom_cnn", "densenet121"])
    arguments.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments.add_argument("--classes", nargs="+", default=["glioma", "meningioma", "pituitary"])
    arguments.add_argument("--max_epochs", type=int, default=30)
    arguments.add_argument("--batch_size", type=int, default=16)  # a step for each 64 of 400 images would be few steps
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = arguments.parse_args()
    settings = {
        "dataset_dir": str(options.data_dir.absolute()),
        "cache_dir": str(options.work_dir.absolute() / "cache"),
        "partition": "folds",
        "class_names": options.classes,
        "out_channels": len(options.classes),
    }
    for fold in options.folds:
        out = options.work_dir / f"baseline-fold{fold}"
        pooled_intensities(config_files("tumor_class", "train.json"), **settings, fold=fold, output_dir=str(out))
    baseline = read([f"baseline-fold{fold}/baseline" for fold in options.folds], options)
    rows, gains = [row("logistic regression", "", baseline, options)], []
    for network, seed in itertools.product(options.networks, options.seeds):
        minutes = 0.0
        for fold in options.folds:
            out = options.work_dir / f"{network}-seed{seed}-fold{fold}"
            own = settings | {"fold": fold, "output_dir": str(out.absolute())}
            clock = out / "minutes.txt"
            if not clock.is_file():
                start = time.perf_counter()
                steps = {"max_epochs": options.max_epochs, "batch_size": options.batch_size, "seed": seed}
                brainmri("train", network, own | steps)
                clock.write_text(f"{(time.perf_counter() - start) / 60:.2f}")
            for name, temperature in (("plain", 1.0), ("calibrated", None)):
                if not (out / name).is_dir():
                    brainmri("evaluate", network, own | {"temperature": temperature})
                    (out / "evaluation").rename(out / name)
            minutes += float(clock.read_text())
        for name in ("plain", "calibrated"):
            table = read([f"{network}-seed{seed}-fold{fold}/{name}" for fold in options.folds], options)
            rows.append(row(f"{network}, seed {seed}, {name}", f"{minutes:.1f}", table, options))
        interval = gain(table["label"], table["prediction"], baseline["prediction"], table["group"])
        gains.append("{}, seed {}: {:+.3f} ({:+.3f}, {:+.3f})".format(network, seed, *interval))
    print("| | balanced accuracy | accuracy | AUC |", " | ".join(options.classes), "| confidence | ECE | minutes | n |")
    print("\n".join(rows))
    print("Balanced accuracy above logistic regression's:")
    print("\n".join(gains))


def brainmri(command: str, network: str, settings: dict[str, Any]) -> None:
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    call = [sys.executable, "-m", "custom.cli", command, "tumor_class", "--network", network, *words]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def read(folders: list[str], options: argparse.Namespace) -> pandas.DataFrame:
    """All folds' test images, in one order."""
    table = pandas.concat(pandas.read_csv(options.work_dir / folder / "predictions.csv") for folder in folders)
    return table.set_index("subject").sort_index()


def row(title: str, minutes: str, table: pandas.DataFrame, options: argparse.Namespace) -> str:
    """A line of the table; of each class the recall."""
    classes = dict(enumerate(options.classes))
    labels = table["label"].map({name: code for code, name in classes.items()}).to_numpy()
    probabilities = table[[f"p_{name}" for name in options.classes]].to_numpy()
    scores = classification_scores(labels, probabilities, classes, table["group"].tolist()).set_index("label")
    every = scores.loc["all"]
    measured = []
    for measure in SHOWN:
        low, high = every[f"{measure}_low"], every[f"{measure}_high"]
        measured.append(f"{every[measure]:.3f} ({low:.3f}, {high:.3f})")
    recalls = [f"{scores.loc[name, 'recall']:.3f}" for name in options.classes]
    calibration = [f"{every['confidence']:.3f}", f"{every['calibration_error']:.3f}"]
    return "| " + " | ".join([title, *measured, *recalls, *calibration, minutes, str(len(table))]) + " |"


if __name__ == "__main__":
    main()
