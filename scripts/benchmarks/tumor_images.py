"""Networks of the tumor classification bundle in 5-fold cross-validation, beside logistic regression on 8x8 means.

    python scripts/benchmarks/tumor_images.py DATA_DIR WORK_DIR [--networks custom_cnn densenet121] [--folds 0 1 2 3 4]
        [--classes glioma meningioma pituitary] [--max_epochs 30] [--batch_size 16] [--seeds 0] [--roi_size 128]
        [--learning_rate 0.0001] [--vit hidden_size=192 num_layers=6 ...] [--pretraining_epochs 100] [--plain]

Images that belong together (near-duplicates, groups.csv) are in one fold. Each network is trained and scored by
`brainmri`, in WORK_DIR/NETWORK-seedN-foldN; finished trainings are not repeated. NETWORK+pretrained (vit+pretrained) is
first pretrained without labels, by `brainmri pretrain`, on the training images of the same fold. --vit sets the sizes
of all vision transformers. Prints the scores of all folds' test images together, with intervals over groups, without
and with the temperature of each fold's validation images, the minutes of all trainings, and how far each network is
above logistic regression on the same images, and above the same network without a pretraining.
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

PRETRAINED = "+pretrained"  # what the name of a pretrained network adds
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
    arguments.add_argument("--roi_size", type=int, default=128)
    arguments.add_argument("--learning_rate", type=float, default=0.0001)
    arguments.add_argument("--vit", nargs="+", default=[], metavar="NAME=NUMBER")
    arguments.add_argument("--pretraining_epochs", type=int, default=100)
    arguments.add_argument("--plain", action="store_true", help="leave out the evaluation with the temperature")
    options = arguments.parse_args()
    data = {
        "dataset_dir": str(options.data_dir.absolute()),
        "cache_dir": str(options.work_dir.absolute() / "cache"),
        "partition": "folds",
        "class_names": options.classes,
        "roi_size": [options.roi_size] * 2,
    }
    settings = data | {"out_channels": len(options.classes)}
    for fold in options.folds:
        out = options.work_dir / f"baseline-fold{fold}"
        pooled_intensities(config_files("tumor_class", "train.json"), **settings, fold=fold, output_dir=str(out))
    baseline = read([f"baseline-fold{fold}/baseline" for fold in options.folds], options)
    rows, gains = [row("logistic regression", "", baseline, options)], []
    tables = {("logistic regression", seed): baseline for seed in options.seeds}
    for network, seed in itertools.product(options.networks, options.seeds):
        minutes = sum(trained(network, seed, fold, data, settings, options) for fold in options.folds)
        for name in evaluations(options):
            table = read([f"{network}-seed{seed}-fold{fold}/{name}" for fold in options.folds], options)
            rows.append(row(f"{network}, seed {seed}, {name}", f"{minutes:.1f}", table, options))
        tables[network, seed] = table
        for other in ("logistic regression", network.removesuffix(PRETRAINED)):
            if other != network and (other, seed) in tables:
                pair = (table["label"], table["prediction"], tables[other, seed]["prediction"], table["group"])
                gains.append(
                    "{}, above {}, seed {}: {:+.3f} ({:+.3f}, {:+.3f})".format(network, other, seed, *gain(*pair))
                )
    print("| | balanced accuracy | accuracy | AUC |", " | ".join(options.classes), "| confidence | ECE | minutes | n |")
    print("\n".join(rows))
    print(f"Balanced accuracy above another's on the same images, {baseline['group'].nunique()} groups:")
    print("\n".join(gains))


def trained(
    network: str, seed: int, fold: int, data: dict[str, Any], settings: dict[str, Any], options: argparse.Namespace
) -> float:
    """Trains and scores a network, as far as this is not done yet. Returns the minutes of its trainings."""
    out = options.work_dir.absolute() / f"{network}-seed{seed}-fold{fold}"
    clock, name = out / "minutes.txt", network.removesuffix(PRETRAINED)
    sizes = dict(pair.split("=") for pair in options.vit) if "vit" in name else {}
    shape = {f"network_def#{key}": value for key, value in sizes.items()}
    own = settings | shape | {"network": name, "fold": fold, "output_dir": str(out)}
    if not clock.is_file():
        start = time.perf_counter()
        steps = {"max_epochs": options.max_epochs, "batch_size": options.batch_size, "seed": seed}
        steps["learning_rate"] = options.learning_rate
        if network.endswith(PRETRAINED):
            patches = {"patch_size": shape.pop("network_def#patch_size", 16)}
            place = {"fold": fold, "seed": seed, "output_dir": str(out / "pretraining")}
            epochs = {"max_epochs": options.pretraining_epochs, "val_interval": 10, "batch_size": 32}
            brainmri("pretrain", data | shape | patches | place | epochs)
            steps["from_weights"] = str(out / "pretraining/model.pt")
        brainmri("train", own | steps)
        clock.write_text(f"{(time.perf_counter() - start) / 60:.2f}")
    for evaluation, temperature in evaluations(options).items():
        if not (out / evaluation).is_dir():
            brainmri("evaluate", own | {"temperature": temperature})
            (out / "evaluation").rename(out / evaluation)
    return float(clock.read_text())


def evaluations(options: argparse.Namespace) -> dict[str, float | None]:
    """The evaluations by name, and their temperatures; None for that of the validation images."""
    return {"plain": 1.0} if options.plain else {"plain": 1.0, "calibrated": None}


def brainmri(command: str, settings: dict[str, Any]) -> None:
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    call = [sys.executable, "-m", "custom.cli", command, "tumor_class", *words]
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
