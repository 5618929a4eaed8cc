"""What is said of classifiers: measures by hand, intervals, temperature, tables, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.networks.nets import DenseNet121
from sklearn.metrics import roc_auc_score

from custom.checkpoints import calibration
from custom.errors import CheckpointError, ConfigError
from custom.handlers import Calibrate, ClassificationScores, Predictions
from custom.metrics import (
    Interval,
    LogLikelihood,
    bootstrap_intervals,
    classification_scores,
    gain,
    regression_scores,
    stacked,
)
from custom.metrics.classification import calibration_error, roc_auc
from custom.metrics.temperature import fit_temperature
from custom.networks import HCPNet
from custom.reports.classification import confusion_figure, predicted_figure, reliability_figure, roc_figure
from custom.reports.heat_maps import cam, grad_cam, heat_maps_figure, layers_figure

CLASSES = {0: "cat", 1: "dog", 2: "owl"}
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
SAID = np.array([0, 0, 0, 1, 1, 0, 2, 2])
PROBABILITIES = np.full((8, 3), 0.2)
PROBABILITIES[np.arange(8), SAID] = 0.6


def test_measures_by_hand() -> None:
    table = classification_scores(LABELS, PROBABILITIES, CLASSES, [str(n) for n in range(8)]).set_index("label")
    assert table["n"].tolist() == [4, 2, 2, 8]
    assert table["recall"].tolist() == pytest.approx([3 / 4, 1 / 2, 1, 0.75])
    assert table["precision"].tolist() == pytest.approx([3 / 4, 1 / 2, 1, 0.75])
    assert table["f1"].tolist() == pytest.approx([3 / 4, 1 / 2, 1, 0.75])
    every = table.loc["all"]
    assert every["accuracy"] == pytest.approx(6 / 8)
    assert every["balanced_accuracy"] == pytest.approx(0.75)
    # of 4 cats and 4 others, 16 pairs: 3 x 3 in order, 3 + 3 x 1 ties of equal scores, one cat below an other
    assert table.loc["cat", "auc"] == pytest.approx((9 + (3 + 3) / 2) / 16)
    assert every["confidence"] == pytest.approx(0.6)
    assert every["calibration_error"] == pytest.approx(0.15)
    assert every["log_loss"] == pytest.approx(-(6 * np.log(0.6) + 2 * np.log(0.2)) / 8)
    assert table.loc["cat", ["accuracy", "balanced_accuracy"]].isna().all()
    assert every["accuracy_low"] < 0.75 < every["accuracy_high"]


def test_a_class_that_nobody_has_counts_in_no_mean() -> None:
    table = classification_scores(LABELS[:6], PROBABILITIES[:6], CLASSES, list("abcdef")).set_index("label")
    assert np.isnan(table.loc["owl", "recall"])
    assert np.isnan(table.loc["owl", "auc"])
    assert table.loc["all", "recall"] == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_class_that_is_never_said_has_no_precision_to_be_proud_of() -> None:
    always = np.tile([0.9, 0.1], (5, 1))
    table = classification_scores(np.array([0, 0, 1, 1, 1]), always, {0: "F", 1: "M"}, list("abcde")).set_index("label")
    assert table["precision"].tolist() == pytest.approx([0.4, 0.0, 0.2])


def test_intervals_draw_groups() -> None:
    """Eight persons of two families know less than eight strangers."""
    families = ["a"] * 4 + ["b"] * 4
    strangers, relatives = (
        classification_scores(LABELS, PROBABILITIES, CLASSES, groups).set_index("label").loc["all"]
        for groups in ([str(n) for n in range(8)], families)
    )
    assert relatives["accuracy_low"] == relatives["accuracy_high"] == 0.75  # three of four are right in each family
    assert strangers["accuracy_low"] < 0.75 < strangers["accuracy_high"]


def test_draws_of_groups_are_fixed_by_the_seed() -> None:
    """Figures of the docs rest on these draws."""
    every = classification_scores(LABELS, PROBABILITIES, CLASSES, list("aabcdefg")).set_index("label").loc["all"]
    assert every[["accuracy_low", "accuracy_high"]].tolist() == [0.375, 1]
    assert every[["balanced_accuracy_low", "auc_low"]].tolist() == pytest.approx([1 / 3, 0.45])
    values = np.arange(9.0)
    row = regression_scores(values, values + np.sin(values), "age", list("aabcdefgh")).iloc[0]
    assert row[["mae_low", "mae_high"]].tolist() == pytest.approx([0.42694188186195886, 0.8215496861975978])
    assert row[["r2_low", "r_high"]].tolist() == pytest.approx([0.697958845209763, 0.9928101754740092])


def test_intervals_by_hand() -> None:
    """Two groups of different sizes: a draw has only the first, only the second, or both; NaN draws do not count."""
    sizes = bootstrap_intervals({"n": len, "no value": lambda rows: float("nan")}, ["a", "b", "b"], draws=400)
    assert sizes["n"] == Interval(3, 2, 4)
    assert np.isnan(sizes["no value"]).all()
    first = bootstrap_intervals({"first": lambda rows: 1.0 if 0 in rows else float("nan")}, ["a", "b"], draws=50)
    assert first["first"] == Interval(1, 1, 1)


def test_a_gain_is_paired() -> None:
    """Two families alike: each classifier's draws are all alike too, and so is what lies between."""
    truth, one, other = (list(2 * letters) for letters in ("ccdd", "ccdc", "cdcc"))
    groups = [*4 * "a", *4 * "b"]
    assert gain(truth, one, other, groups) == pytest.approx(((1 + 1 / 2) / 2 - (1 / 2 + 0) / 2,) * 3)
    difference, low, high = gain(truth, one, other, [str(n) for n in range(8)])
    assert low < difference == 0.5 < high


def test_measures_of_numbers() -> None:
    values, said = np.array([1.0, 2, 3, 4]), np.array([1.5, 2, 3, 5.5])
    row = regression_scores(values, said, "age", list("abcd")).iloc[0]
    assert row["label"] == "age"
    assert row["mae"] == pytest.approx(0.5)
    assert row["r2"] == pytest.approx(1 - (0.25 + 2.25) / 5)
    assert row["r"] == pytest.approx(np.corrcoef(values, said)[0, 1])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=30))
def test_area_is_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    truth, score = np.array([one[0] for one in pairs]), np.array([one[1] for one in pairs])
    if truth.all() or not truth.any():
        assert np.isnan(roc_auc(truth, score))
    else:
        assert roc_auc(truth, score) == pytest.approx(roc_auc_score(truth, score))


def test_a_calibration_error_of_0() -> None:
    """Of ten answers with a confidence of 0.8, eight are right."""
    probabilities = np.tile([0.8, 0.2], (10, 1))
    assert calibration_error(np.array([0] * 8 + [1] * 2), probabilities) == pytest.approx(0)
    assert calibration_error(np.array([0] * 10), probabilities) == pytest.approx(0.2)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.3, 5.0))
def test_temperature_is_found(temperature: float) -> None:
    """Labels drawn by a network's own probabilities, whose logits are then stretched."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    stretched = torch.softmax(torch.as_tensor(logits * temperature), dim=1).numpy()
    found = fit_temperature(stretched, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    again = torch.stack([calibration.softmax(temperature)(one) for one in torch.as_tensor(logits * temperature)])
    np.testing.assert_allclose(again.numpy(), true, atol=1e-9)


def engine_of(items: list[dict[str, Any]]) -> Engine:
    """Gives items in batches of two, as an evaluator's state has them."""

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return batch

    engine = Engine(step)
    engine.state.best_metric_epoch = 1
    return engine


def batches(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [items[start : start + 2] for start in range(0, len(items), 2)]


ITEMS = [
    {"subject": str(n), "label": torch.tensor(label), "pred": torch.tensor(said)}
    for n, (label, said) in enumerate(zip(LABELS, PROBABILITIES, strict=True))
]


def test_tables_of_an_evaluation(tmp_path: Path) -> None:
    engine = engine_of(ITEMS)
    ClassificationScores(tmp_path, CLASSES).attach(engine)
    for _ in range(2):
        engine.run(batches(ITEMS))
    said = pandas.read_csv(tmp_path / "predictions.csv")
    assert list(said) == ["subject", "label", "prediction", "probability", "p_cat", "p_dog", "p_owl"]
    assert said.iloc[3].tolist() == [3, "cat", "dog", 0.6, 0.2, 0.6, 0.2]
    scores = pandas.read_csv(tmp_path / "scores.csv").set_index("label")
    assert scores.loc["all", "accuracy"] == 0.75
    assert len(list(tmp_path.glob("earlier/*/scores.csv"))) == 1  # the first run's is kept


def test_a_table_without_labels(tmp_path: Path) -> None:
    unlabelled = [{key: item[key] for key in ("subject", "pred")} for item in ITEMS]
    engine = engine_of(unlabelled)
    Predictions(tmp_path, CLASSES).attach(engine)
    engine.run(batches(unlabelled))
    assert list(pandas.read_csv(tmp_path / "predictions.csv"))[:3] == ["subject", "prediction", "probability"]


@pytest.mark.parametrize(("n", "temperature"), [(1, 1.0), (20, 0.05)])
def test_calibration_needs_twenty(n: int, temperature: float, tmp_path: Path) -> None:
    """All are right: of many that is sharpened to the bound. Before the first validation it is 1."""
    items = [{"subject": "a", "label": 0, "pred": torch.tensor([0.6, 0.4])}] * n
    evaluator, trainer = engine_of(items), engine_of(items)
    trainer.state.rank = 0
    Calibrate(tmp_path, evaluator, {0: "F", 1: "M"}).attach(trainer)
    trainer.run([items])
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert kept == {"classes": ["F", "M"], "temperature": 1.0, "n": 0}
    evaluator.run([items])
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert kept["n"] == n
    assert kept["temperature"] == pytest.approx(temperature, rel=0.01)
    evaluator.state.best_metric_epoch = 5
    (tmp_path / "calibration.json").unlink()
    evaluator.run([items])
    assert not (tmp_path / "calibration.json").exists()  # not the best one


def test_calibration_in_half_precision(tmp_path: Path) -> None:
    """Logits of mixed precision, far apart: nothing becomes 0."""
    probabilities = calibration.softmax()(torch.tensor([30.0, -30.0], dtype=torch.float16))
    assert 0 < probabilities[1] < 1e-20
    assert calibration.in_units(1.5e6, 1e5)(torch.tensor([1.0], dtype=torch.float16)).item() == 1.6e6


def test_what_is_kept_beside_weights(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    assert calibration.names(weights, 2) == {0: "class 0", 1: "class 1"}
    calibration.write(tmp_path, {"classes": ["F", "M"], "temperature": 2.0})
    assert calibration.names(weights, 2) == {0: "F", 1: "M"}
    logits = torch.tensor([0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(calibration.decoder(weights)(logits), torch.softmax(logits / 2, dim=0))
    torch.testing.assert_close(calibration.decoder(weights, 1.0)(logits), torch.softmax(logits, dim=0))
    calibration.check_outputs({0: "F", 1: "M"}, 2, weights)
    weights.touch()
    calibration.check_outputs({0: "F", 1: "M"}, 2, weights)
    with pytest.raises(CheckpointError, match=r"was trained for \['F', 'M'\], not for \['M', 'F'\]"):
        calibration.check_outputs({0: "M", 1: "F"}, 2, weights)
    for wrong in (-1, 0, "abc"):
        with pytest.raises(ConfigError, match=r"temperature must be a number above 0, got"):
            calibration.decoder(weights, wrong)
    with pytest.raises(CheckpointError, match=r"calibration\.json names 2 outputs, but the network has 3\. Set .* 2"):
        calibration.names(weights, 3)
    calibration.write(tmp_path, {"classes": ["age"], "mean": 30.0, "std": 4.0})
    assert calibration.decoder(weights)(torch.tensor([-0.5])).tolist() == [28.0]
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration\.json can't be read"):
        calibration.decoder(weights)


def test_a_network_needs_an_output_for_each_class() -> None:
    calibration.check_outputs({0: "F", 1: "M"}, 2)
    with pytest.raises(ConfigError, match=r"3 classes \(a, b, c\), but the network 2 outputs\. Set .*out_channels 3"):
        calibration.check_outputs({0: "a", 1: "b", 2: "c"}, 2)


def test_log_likelihood() -> None:
    metric = LogLikelihood(output_transform=lambda output: output)
    metric.update(([torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])], [torch.tensor(0), torch.tensor(1)]))
    metric.update(([torch.tensor([0.1, 0.9])], [torch.tensor(0)]))
    assert metric.compute() == pytest.approx((np.log(0.5) + np.log(0.8) + np.log(0.1)) / 3)
    # 30 persons, 20 of whom it is right about: at any temperature that says 2/3, however sure it was
    for sure in (0.7, 0.9999):
        metric.reset()
        pred = [torch.tensor([sure, 1 - sure]).double()] * 30
        metric.update((pred, [torch.tensor(int(n >= 20)) for n in range(30)]))
        assert metric.compute() == pytest.approx((2 * np.log(2 / 3) + np.log(1 / 3)) / 3, abs=1e-6)


def test_stacked() -> None:
    first, second = stacked(["pred", "label"])(
        [{"pred": torch.ones(2), "label": 1}, {"pred": torch.zeros(2), "label": 0}]
    )
    assert first.tolist() == [[1, 1], [0, 0]]
    assert second.tolist() == [1, 0]


class BrightCorner(torch.nn.Module):
    """Class 1 is what is bright in one corner."""

    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(1, 1, 1, bias=False)
        self.relu = torch.nn.ReLU(inplace=True)
        torch.nn.init.ones_(self.look.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = self.relu(self.look(x))[:, :, :8, :8].mean(dim=(1, 2, 3))
        return torch.stack([-bright, bright], dim=1)


def test_grad_cam_shows_the_place() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 2:5, 2:5] = 1
    heat = grad_cam(BrightCorner(), image, 1)
    assert heat.shape == (16, 16)
    assert heat[2:5, 2:5].min() == 1
    assert heat.sum() == 9


def test_maps_of_real_networks() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1, 48, 48, 48)
    network = HCPNet(1, 2, (48, 48, 48))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    heat = grad_cam(network, image, 0)
    assert heat.shape == (48, 48, 48)
    assert 0 <= heat.min() <= heat.max() <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())
    assert network.training
    figure = heat_maps_figure([image[0].numpy()], [heat], ["one"])
    assert len(figure.axes) == 3
    assert len(layers_figure(network, image).axes) == 5 * 8
    small = torch.randn(1, 3, 64, 64)
    maps = [draw(DenseNet121(2, 3, 4), small, 1) for draw in (grad_cam, cam)]
    assert [one.shape for one in maps] == [(64, 64)] * 2
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
    with pytest.raises(ValueError, match=r"Sequential has no layer whose maps have 5 voxels or more a side"):
        grad_cam(flat, torch.randn(1, 1, 16, 16), 0)


def test_figures() -> None:
    assert confusion_figure(LABELS, PROBABILITIES, CLASSES).axes[0].get_xticklabels()[1].get_text() == "dog"
    curves = roc_figure(LABELS, PROBABILITIES, CLASSES).axes[0].get_lines()
    assert len(curves) == 4  # three classes and the diagonal
    assert len(roc_figure(LABELS[:6], PROBABILITIES[:6, :2], {0: "cat", 1: "dog"}).axes[0].get_lines()) == 2
    assert "error 0.150, n = 8" in reliability_figure(LABELS, PROBABILITIES).axes[0].get_title()
    assert "n = 4" in predicted_figure(np.arange(4.0), np.arange(4.0), "age").axes[0].get_title()
