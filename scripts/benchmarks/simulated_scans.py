"""The any-scan network on scans simulated from the validation label maps: Dice, confidence, volumes in four contrasts.

    python scripts/benchmarks/simulated_scans.py MAPS [--scans 60] [--seed 2] [--ckpt_path model.pt]
    python scripts/benchmarks/simulated_scans.py MAPS --scans 60 --seed 1 --write_fits confidence.json
    python scripts/benchmarks/simulated_scans.py MAPS --contrasts 20

MAPS is the folder of SynthSeg's maps (custom.datasets.synthseg_labels); the last four subjects are drawn from, in turn.
The first form prints, for each tissue and structure, Dice of the network alone and after the refinement (mean and
standard deviation over scans), the mean confidence, and Spearman's correlation of confidence and Dice; draws are as
hard as in training: all contrasts, slabs, thick slices, lesions, noise. --write_fits writes what turns expected into
true Dice, a monotone curve by structure, for models/confidence.json. --contrasts draws each of so many whole heads
as T1w, T2w, FLAIR and PD and prints how far brain and intracranial volume differ between them, and Dice of T1w, T2w and
both jointly.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from custom.datasets import freesurfer
from custom.datasets import synthseg_labels as maps
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.running.confidence import Evidence, Fit, confidence, evidence_of, read_fits, without_side
from custom.transforms import Structures, SynthesizeScand
from custom.transforms.brain_masks import brain_masks
from custom.transforms.synthesize_scan import CONTRASTS

TISSUES = np.asarray(freesurfer.TISSUE_NUMBERS)
FOURTH, THIRD = freesurfer.FOURTH_VENTRICLE[0], 14
VOXEL_ML = 1.5**3 / 1000


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = first.sum() + second.sum()
    return float(2 * (first & second).sum() / total) if total else math.nan


class Drawn:
    """Scans simulated from the validation maps in turn, and the network's labels of them."""

    def __init__(self, folder: Path, predictor: Predictor, seed: int, **options: Any) -> None:
        structures = Structures(maps.labels_by_code(freesurfer.LABELS), maps.STRUCTURES, maps.BRIGHT_AS, maps.SIDES)
        self.transform = SynthesizeScand("label", structures, **options)
        self.transform.set_random_state(seed)
        self.predictor = predictor
        self.device = next(predictor.network.parameters()).device
        paths = [item["label"] for item in maps.datalist(folder, "validation")]
        self.maps = [torch.as_tensor(np.asarray(load_nifti(path).dataobj).astype(np.int16))[None] for path in paths]

    def draw(self, number: int) -> dict[str, Any]:
        """Of one scan: "image", "pred" (logits), and the reference labels "outputs" and "codes"."""
        item = self.transform({"label": self.maps[number % len(self.maps)]})
        outputs, side = item["label"].as_tensor().long()
        left, right = torch.as_tensor(freesurfer.LEFT_CODES), torch.as_tensor(freesurfer.RIGHT_CODES)
        codes = torch.where(side == 1, left[outputs], right[outputs])
        with torch.inference_mode():
            image = item["image"][None].to(self.device)
            logits = self.predictor.inferer(image, self.predictor.network)[0].float().cpu()
        return {"image": item["image"], "pred": logits, "outputs": outputs.numpy(), "codes": codes.numpy()}

    def labelled(self, drawn: dict[str, Any], logits: Any = None) -> dict[str, Any]:
        item = {"pred": drawn["pred"] if logits is None else logits, "scan": drawn["image"], "image": drawn["image"]}
        with torch.inference_mode():
            labels: dict[str, Any] = self.predictor.labelling(item)
        return labels


def load_nifti(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def scores(drawn: dict[str, Any], item: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Dice by name, of the network alone ("network") and refined ("refined")."""
    alone = drawn["pred"][:-1].max(dim=0).indices.numpy()
    outputs, tissues = drawn["outputs"], np.asarray(item["pred"])[0]
    codes = np.asarray(item["structures"])[0]
    codes = np.where(codes == FOURTH, THIRD, codes)  # the maps have one label for both
    network = {
        name: dice(TISSUES[alone] == n, TISSUES[outputs] == n) for n, name in enumerate(freesurfer.TISSUE_NAMES, 1)
    }
    network |= {structure.title: dice(alone == n, outputs == n) for n, structure in enumerate(freesurfer.STRUCTURES, 1)}
    refined = {name: dice(tissues == n, TISSUES[outputs] == n) for n, name in enumerate(freesurfer.TISSUE_NAMES, 1)}
    for code, (name, _) in freesurfer.names_and_colours().items():
        if code != FOURTH:
            refined[name] = dice(codes == code, drawn["codes"] == code)
    refined["scan"] = float(np.nanmean([refined[name] for name in freesurfer.TISSUE_NAMES]))
    return {"network": network, "refined": refined}


def table(folder: Path, predictor: Predictor, scans: int, seed: int, write: Path | None) -> None:
    drawn = Drawn(folder, predictor, seed)
    fits = {} if write else read_fits(predictor.path, predictor.sha256)
    network, refined, expected = (defaultdict(list) for _ in range(3))
    evidence: list[dict[str, Evidence]] = []
    for number in range(scans):
        scan = drawn.draw(number)
        item = drawn.labelled(scan)
        dices = scores(scan, item)
        evidence.append(evidence_of(item["measures"], VOXEL_ML))
        trusted = confidence(item["measures"], VOXEL_ML, fits)
        for name, value in dices["network"].items():
            network[name].append(value)
        for name, value in dices["refined"].items():
            refined[name].append(value)
            expected[name].append(trusted.get(name, math.nan))
        print(f"{number + 1} of {scans}", end="\r", flush=True)
    print("| label | n | network alone | refined | confidence | Spearman |\n|---|---|---|---|---|---|")
    for name, values in refined.items():
        both = np.array([values, expected[name]])
        both = both[:, ~np.isnan(both).any(axis=0)]
        alone = network.get(name) or network.get(without_side(name), [math.nan])
        print(
            f"| {name} | {both.shape[1]} | {_mean(alone)} | {_mean(values)} | {both[1].mean():.3f} | "
            f"{spearmanr(*both).statistic:.2f} |"
        )
    sided = [values for name, values in refined.items() if name not in (*freesurfer.TISSUE_NAMES, "scan")]
    print(f"\nMean over structures and scans: {np.nanmean([np.nanmean(values) for values in sided]):.3f}")
    if write:
        fits = fit_all(evidence, refined)
        content = {"weights_sha256": predictor.sha256, "fits": {name: _as_json(fit) for name, fit in fits.items()}}
        write.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{write}: fits of {len(fits)} names")


def _mean(values: list[float]) -> str:
    return f"{np.nanmean(values):.3f} ({np.nanstd(values):.3f})"


def fit_all(evidence: list[dict[str, Evidence]], dices: dict[str, list[float]]) -> dict[str, Fit]:
    """A fit for each name, left and right together.

    The weighted sum is the label's own evidence alone, or all three values by ridge regression where these order the
    scans clearly better (Spearman's correlation by at least 0.05) when each sixth of the scans is predicted from the
    other five sixths.
    """
    samples: dict[str, list[tuple[int, Evidence, float]]] = defaultdict(list)
    for name, values in dices.items():
        for number, value in enumerate(values):
            if name in evidence[number] and not math.isnan(value):
                samples[without_side(name)].append((number, evidence[number][name], value))
    return {name: _fit(rows) for name, rows in samples.items()}


def _fit(rows: list[tuple[int, Evidence, float]]) -> Fit:
    part = np.array([number % 6 for number, _, _ in rows])
    x = np.array([(seen.own, seen.median, seen.log_ml) for _, seen, _ in rows])
    y = np.array([value for _, _, value in rows])
    crossed = np.empty_like(y)
    for fold in range(6):
        others = part != fold
        weights = _ridge(x[others], y[others])
        crossed[~others] = y[others].mean() + (x[~others] - x[others].mean(axis=0)) @ weights
    better = spearmanr(crossed, y).statistic >= spearmanr(x[:, 0], y).statistic + 0.05
    weights = _ridge(x, y) if better else np.array([1.0, 0.0, 0.0])
    return _curve(x @ weights, y, tuple(float(round(weight, 5)) for weight in weights))


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of three values; the constant is left to the curve."""
    centred = x - x.mean(axis=0)
    scale = centred.std(axis=0) + 1e-9
    return np.linalg.solve((centred / scale).T @ (centred / scale) + np.eye(3), (centred / scale).T @ y) / scale


def _curve(x: np.ndarray, y: np.ndarray, weights: tuple[float, ...]) -> Fit:
    """Half a monotone regression and half a line, at 11 places; beyond them the line alone."""
    line = np.polyfit(x, y, 1)
    smooth = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    reach = max(1.0, x.max() - x.min())
    places = np.unique([x.min() - reach, *np.quantile(x, np.linspace(0, 1, 11)), x.max() + reach])
    fitted = np.where((places < x.min()) | (places > x.max()), np.polyval(line, places), smooth.predict(places))
    fitted = np.maximum.accumulate(np.clip(0.5 * fitted + 0.5 * np.polyval(line, places), 0, 1))
    return Fit(tuple(map(float, places)), tuple(map(float, fitted)), weights)


def _as_json(fit: Fit) -> dict[str, Any]:
    curve = {"evidence": [round(v, 4) for v in fit.evidence], "dice": [round(v, 4) for v in fit.dice]}
    return curve if fit.weights == (1.0, 0.0, 0.0) else {"weights": list(fit.weights)} | curve


def contrasts(folder: Path, predictor: Predictor, heads: int, seed: int) -> None:
    volumes: dict[str, list[list[float]]] = {"brain": [], "brain, of its labels": [], "intracranial": []}
    paired: dict[str, list[list[float]]] = {name: [] for name in ("T1", "T2", "joint")}
    names = list(CONTRASTS)
    for number in range(heads):
        drawn = {name: Drawn(folder, predictor, seed + number, stripped=0, cut=0, contrast=name) for name in names}
        heads_of = {name: source.draw(number) for name, source in drawn.items()}
        for rows in volumes.values():
            rows.append([])
        for name in names:
            item = drawn[name].labelled(heads_of[name])
            affine = np.asarray(item["structures"].affine, dtype=float)
            codes = np.asarray(item["structures"])[0]
            _, intracranial = brain_masks(codes, affine, freesurfer.AROUND_BRAIN)
            volumes["brain"][-1].append(item["measures"].expected_brain(freesurfer.AROUND_BRAIN) * VOXEL_ML)
            in_labels = (codes > 0) & (codes != freesurfer.AROUND_BRAIN)
            volumes["brain, of its labels"][-1].append(float(in_labels.sum()) * VOXEL_ML)
            volumes["intracranial"][-1].append(float(intracranial.sum()) * VOXEL_ML)
            if name in paired:
                paired[name].append(_tissue_dice(heads_of[name], item))
        product = predictor._product([heads_of["T1"]["pred"].clone(), heads_of["T2"]["pred"].clone()])
        paired["joint"].append(_tissue_dice(heads_of["T1"], drawn["T1"].labelled(heads_of["T1"], product)))
        print(f"{number + 1} of {heads}", end="\r", flush=True)
    print(f"| volume | n heads | {' | '.join(names)} | largest deviation from a head's mean: median, 90%, greatest |")
    print("|---|---|---|---|---|---|---|")
    for volume, rows in volumes.items():
        values = np.array(rows)
        relative = values / values.mean(axis=1, keepdims=True) - 1
        each = " | ".join(f"{100 * mean:+.2f}%" for mean in relative.mean(axis=0))
        worst = np.abs(relative).max(axis=1)
        spread = ", ".join(f"{100 * np.quantile(worst, q):.2f}%" for q in (0.5, 0.9, 1))
        print(f"| {volume} | {heads} | {each} | {spread} |")
    print("\n| segmented from | n | CSF | GM | WM |\n|---|---|---|---|---|")
    for name, dices in paired.items():
        print(f"| {name} | {heads} | {' | '.join(_mean(list(column)) for column in np.array(dices).T)} |")


def _tissue_dice(drawn: dict[str, Any], item: dict[str, Any]) -> list[float]:
    tissues = np.asarray(item["pred"])[0]
    return [dice(tissues == n, TISSUES[drawn["outputs"]] == n) for n in (1, 2, 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--write_fits", type=Path)
    parser.add_argument("--contrasts", type=int, default=0)
    options = parser.parse_args()
    settings = {"ckpt_path": options.ckpt_path} if options.ckpt_path else {}
    predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), **settings)
    device = next(predictor.network.parameters()).device
    print(f"weights {predictor.sha256[:12]}, seed {options.seed}, {device}, {torch.get_num_threads()} threads\n")
    if options.contrasts:
        contrasts(options.maps, predictor, options.contrasts, options.seed)
        return
    table(options.maps, predictor, options.scans, options.seed, options.write_fits)


if __name__ == "__main__":
    main()
