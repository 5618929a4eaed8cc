"""The talk's giant kernels against small ones, at equal parameters and at equal time, on the simulated HCP sample.

    python scripts/benchmarks/giant_kernels.py WORK_DIR [--subjects 60] [--target Ventricles] [--folds 3] [--epochs 8]
        [--noise 3.0] [--seeds 0]

Three networks of custom.networks.HCPNet: kernels of 60, 25, 15, 10 and 5 voxels; kernels of 3 with the same features;
kernels of 3 with features that make its parameters equal to the first one's. In each fold the first one trains for
--epochs epochs. The others train for as long as the first one (process time of one core), and are scored after as many
epochs, too. Noise makes the task harder: its std is given in those of the brain's voxels. Folds are of whole families.
Prints the ROC AUC of pairs within a fold and seed, with a 95% interval from bootstrap samples of families, the log loss
of all test subjects, epochs and seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn

from custom.baselines.nested_cv import auc_interval
from custom.baselines.volumes_to_rows import volumes_to_rows
from custom.datasets import hcp
from custom.networks import HCPNet
from custom.networks.cost import count_parameters
from custom.networks.hcp_net import FEATURES, TALK
from custom.running.bundles import config_files
from custom.samples import hcp as sample

SMALL = (3, 3, 3, 3, 3)
BATCH = 8


class Data(NamedTuple):
    """Volumes (n, 1, x, y, z), classes 0 and 1, and families."""

    volumes: torch.Tensor
    labels: torch.Tensor
    families: np.ndarray


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("work_dir", type=Path)
    arguments.add_argument("--subjects", type=int, default=60)
    arguments.add_argument("--target", default="Ventricles")
    arguments.add_argument("--folds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--noise", type=float, default=3.0)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = arguments.parse_args()
    data = read(options)
    size = list(data.volumes.shape[2:])
    wide = equal_features(size)
    shapes = {
        f"kernels {', '.join(map(str, TALK))}": {"kernel_sizes": TALK},
        "kernels 3": {"kernel_sizes": SMALL},
        f"kernels 3, features {', '.join(map(str, wide))}": {"kernel_sizes": SMALL, "features": wide},
    }
    results: list[pandas.DataFrame] = []
    splitter = StratifiedGroupKFold(options.folds, shuffle=True, random_state=0)
    for seed in options.seeds:
        for fold, (train, test) in enumerate(splitter.split(data.labels, data.labels, data.families)):
            seconds = float("inf")
            for name, shape in shapes.items():
                torch.manual_seed(seed)
                network = HCPNet(1, 1, size, dropout=0.2, **shape)
                for row in scored(network, data, train, test, options.epochs, seconds):
                    results.append(
                        row.assign(network=name, fold=fold, seed=seed, n_parameters=count_parameters(network))
                    )
                    if np.isinf(seconds):
                        seconds = float(row["seconds"].iloc[0])
            print(f"seed {seed}, fold {fold}: done", flush=True)
    report(pandas.concat(results), options)


def read(options: argparse.Namespace) -> Data:
    """The sample after the bundle's preprocessing, with noise in the brain's voxels."""
    folder = sample.write(options.work_dir / "sample", subjects=options.subjects)
    people = hcp.persons(folder, options.target)
    parser = ConfigParser(ConfigParser.load_config_files(config_files("hcp", "train.json")))
    parser.update({"cache_dir": str(options.work_dir / "cache")})
    rows, _ = volumes_to_rows(people["image"], parser.get_parsed_content("preprocessing"))
    noise = np.random.default_rng(0).normal(0, options.noise, rows.shape) * (rows != 0)
    volumes = torch.as_tensor(rows + noise, dtype=torch.float32).reshape(-1, 1, *parser["roi_size"])
    return Data(volumes, torch.as_tensor(people["label"].to_numpy()).float(), people["family"].to_numpy())


def equal_features(size: Sequence[int]) -> list[int]:
    """Features that give kernels of 3 the parameters of the talk's network, as nearly as whole factors of 1 allow."""
    with torch.device("meta"):
        wanted = count_parameters(HCPNet(1, 1, size, TALK))
        widths = [[features * tenths // 10 for features in FEATURES] for tenths in range(10, 100)]
        return min(widths, key=lambda w: abs(count_parameters(HCPNet(1, 1, size, SMALL, features=w)) - wanted))


def scored(
    network: nn.Module, data: Data, train: np.ndarray, test: np.ndarray, epochs: int, seconds: float
) -> Iterator[pandas.DataFrame]:
    """Trains, and yields the test subjects' probabilities after `epochs` epochs and after `seconds` of process time."""
    optimizer = torch.optim.AdamW(network.parameters(), 0.0003, weight_decay=0.01)
    start, epoch, paused, over = time.process_time(), 0, 0.0, False
    while epoch < epochs or not over:
        network.train()
        for batch in torch.as_tensor(train)[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            logits = network(data.volumes[batch])[:, 0]
            nn.functional.binary_cross_entropy_with_logits(logits, data.labels[batch]).backward()
            optimizer.step()
        epoch += 1
        spent = time.process_time() - start - paused
        moments = ["epochs"] if epoch == epochs else []
        if not over and (spent >= seconds or (np.isinf(seconds) and epoch == epochs)):
            over = True
            moments.append("time")
        for when in moments:
            before = time.process_time()
            network.eval()
            with torch.no_grad():
                chance = torch.cat([network(data.volumes[batch])[:, 0] for batch in torch.as_tensor(test).split(BATCH)])
            table = {"p": chance.sigmoid().numpy(), "label": data.labels[test].numpy(), "family": data.families[test]}
            yield pandas.DataFrame(table).assign(when=when, epochs=epoch, seconds=spent)
            paused += time.process_time() - before


def report(table: pandas.DataFrame, options: argparse.Namespace) -> None:
    """A row for each network, scored after equal epochs and after equal time."""
    subjects = table.query("when == 'time'").groupby("network", sort=False).size().iloc[0]
    print(f"{options.target}, noise {options.noise}, {options.subjects} subjects, {options.folds} folds, ", end="")
    print(f"seeds {options.seeds}, {subjects} predictions, {table['family'].nunique()} families, one core")
    print("| network | parameters | scored after equal | epochs | s per training | AUC (95% interval) | log loss |")
    print("|---|---|---|---|---|---|---|")
    for (name, when), rows in table.groupby(["network", "when"], sort=False):
        split = (rows["seed"] * 1000 + rows["fold"]).to_numpy()
        positive, score = rows["label"].to_numpy(int), rows["p"].to_numpy(float)
        auc, low, high = auc_interval(positive, score, split, rows["family"].tolist())
        loss = log_loss(positive, score.clip(1e-6, 1 - 1e-6))
        cells = [name, f"{rows['n_parameters'].iloc[0]:,}", when, f"{rows['epochs'].mean():.0f}"]
        cells += [f"{rows['seconds'].mean():.1f}", f"{auc:.3f} ({low:.3f}, {high:.3f})", f"{loss:.3f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
