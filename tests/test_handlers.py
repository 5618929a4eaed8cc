"""The handlers, on engines of a few lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import RandGaussianNoise

from custom.errors import CheckpointError
from custom.handlers import EarlyStop, EpochSeed, LoadWeights, SegmentationScores, WritesFiles, run_files


@pytest.mark.parametrize(
    ("best_epochs", "best", "stops_at"),
    [
        ([1, 1, 1, 1, 1, 1], 0.5, 4),
        ([1, 2, 3, 3, 3, 3], 0.5, 6),
        ([-1] * 6, -1, 6),
        ([1, 1, 1, 1, 1, 1], float("nan"), 6),  # no validation subject has any label
    ],
)
def test_early_stop(best_epochs: list[int], best: float, stops_at: int) -> None:
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=-1, best_metric=best))
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: setattr(evaluator.state, "best_metric_epoch", best_epochs[trainer.state.epoch - 1]),
    )
    EarlyStop(evaluator, patience=3).attach(trainer)
    trainer.run([0], max_epochs=6)
    assert trainer.state.epoch == stops_at


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_depends_on_the_seed_and_the_epoch_alone(workers: int) -> None:
    """The third epoch's order and noise are the same after two others as at once."""

    def third_epoch(first: int) -> list[float]:
        dataset = Dataset([torch.full((1,), float(i)) for i in range(6)], RandGaussianNoise(prob=1.0))
        loader = DataLoader(dataset, num_workers=workers, shuffle=True)
        seen: list[float] = []
        trainer = Engine(lambda engine, batch: seen.append(float(batch) + float(torch.rand(()))))
        trainer.data_loader = loader

        @trainer.on(Events.STARTED)
        def resume() -> None:
            trainer.state.rank = 0
            trainer.state.epoch = first

        EpochSeed(seed=5).attach(trainer)
        trainer.run(loader, max_epochs=3)
        return seen[-6:]

    assert third_epoch(0) == third_epoch(2) == third_epoch(1)


def test_handlers_declare_their_files() -> None:
    """What Checkpoint moves aside; a handler that a user writes is counted too."""
    known = {
        *("last.pt", "model.pt", "model.json", "calibration.json", "tensorboard", "predictions.csv", "scores.csv"),
        *("summary.csv", "model.ts", "model.onnx", "evaluation", "segmentations", "report"),
    }
    assert known <= set(run_files())
    assert "histogram.png" not in run_files()

    class Histogram(WritesFiles):
        files = ("histogram.png", "model.pt")

    names = run_files()
    assert Histogram.files[0] in names
    assert len(names) == len(set(names))


def one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    return torch.as_tensor(np.stack([labels == code for code in range(classes)]).astype(np.float32))


def test_scores_in_mm(tmp_path: Path) -> None:
    """A plane moved by two voxels of 3 mm: every distance is 6 mm. A cube moved by half its side: half overlaps."""
    reference, moved = np.zeros((2, 12, 12, 12), dtype=int)
    reference[1], moved[3] = 1, 1
    reference[6:10, 4:8, 4:8] = moved[8:12, 4:8, 4:8] = 2
    spacing = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))
    label = MetaTensor(one_hot(reference, 4), affine=spacing)
    engine = Engine(lambda engine, batch: [{"pred": one_hot(moved, 4), "label": label}])
    SegmentationScores(tmp_path, {0: "background", 1: "plane", 2: "cube", 3: "absent"}).attach(engine)
    engine.run([[{"subject": "subject-1"}]])
    scores = pandas.read_csv(tmp_path / "scores.csv").set_index("label")
    assert scores.loc["cube", "dice"] == pytest.approx(0.5)
    assert scores.loc["plane", ["dice", "hausdorff95_mm", "surface_distance_mm"]].tolist() == [0, 6, 6]
    assert scores.loc["absent", ["dice", "hausdorff95_mm", "surface_distance_mm"]].isna().all()
    summary = pandas.read_csv(tmp_path / "summary.csv").set_index("label")
    assert summary.loc[["plane", "absent"], "dice_count"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"There are no weights at .*model\.pt\. Train first"),
        ("cut", r"model\.pt can't be read .*\. It is cut short or no file of weights"),
        (
            {"weight": torch.zeros(3, 5)},
            r"model\.pt holds another network's weights \(2 of 2 tensors don't fit, weight",
        ),
        ({f"conv.{n}": torch.zeros(3) for n in "abc"}, r"another network's weights \(2 of 2 tensors don't fit, weight"),
        (
            {"weight": torch.zeros(3, 4), "bias": torch.zeros(3), "scale": torch.zeros(3)},
            r"model\.pt holds another network's weights \(this network has no tensor scale\)\. Set the network",
        ),
    ],
    ids=["missing", "cut short", "another network", "other names", "a tensor more"],
)
def test_weights_that_dont_fit(content: object, sentence: str, tmp_path: Path) -> None:
    network = torch.nn.Linear(4, 3)
    path = tmp_path / "model.pt"
    if content == "cut":
        torch.save(network.state_dict(), path)
        path.write_bytes(path.read_bytes()[:200])
    elif content:
        torch.save(content, path)
    engine = Engine(lambda engine, batch: None)
    LoadWeights(path, network).attach(engine)
    with pytest.raises(CheckpointError, match=sentence):
        engine.run([0])
