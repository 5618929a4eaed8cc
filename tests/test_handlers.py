"""The handlers, on engines of a few lines."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.transforms import Lambdad, RandGaussianNoise

from custom.checkpoints.load import load_checkpoint
from custom.errors import CheckpointError, ConfigError
from custom.handlers import (
    Checkpoint,
    EarlyStop,
    EpochSeed,
    LoadWeights,
    SegmentationScores,
    ValidationLoss,
    WritesFiles,
    run_files,
)


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


def test_the_validation_loss_is_that_of_the_logits() -> None:
    """Two scans: (2 - 1)^2 and (5 - 2)^2, whatever the postprocessing makes of them, and anew in each validation."""
    scans = [{"image": torch.tensor([value]), "label": torch.tensor([label])} for value, label in ((2.0, 1), (5.0, 2))]
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(scans)),
        torch.nn.Identity(),
        postprocessing=Lambdad("pred", torch.zeros_like),
    )
    ValidationLoss(lambda logits, label: ((logits - label) ** 2).mean()).attach(evaluator)
    for _ in range(2):
        evaluator.run()
        assert evaluator.state.metrics["loss"] == (1 + 9) / 2


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


class StopError(Exception):
    pass


def trained_once(folder: Path, stop_after: int | None, resume: bool = False) -> None:
    """Four epochs of three steps, with everything that a bundle's trainer has; or an error after some epoch."""
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()
        schedule.step()

    trainer = Engine(step)

    @trainer.on(Events.STARTED)
    def as_monai_does() -> None:
        trainer.state.rank, trainer.scaler = 0, None

    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1))
    objects = {"optimizer": optimizer, "lr_scheduler": schedule}
    Checkpoint(folder, network, evaluator, objects, resume=resume).attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def stop() -> None:
        if trainer.state.epoch == stop_after:
            raise StopError

    trainer.run([torch.full((1, 2), float(value)) for value in range(3)], max_epochs=4)


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert_equal(value, second[name])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_a_resumed_run_is_the_same_in_everything(tmp_path: Path) -> None:
    trained_once(tmp_path / "whole", None)
    with pytest.raises(StopError):
        trained_once(tmp_path / "stopped", 2)
    trained_once(tmp_path / "stopped", None, resume=True)
    whole, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "stopped"))
    assert whole["trainer"] == {"epoch": 4, "iteration": 12}
    assert whole["lr_scheduler"]["_step_count"] == 13
    assert_equal(whole, resumed)


def test_no_training_in_the_folder_of_another(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    sentence = rf"{re.escape(str(tmp_path))} is used by process {holder.pid} on .*\. Wait until it ends, or use another"
    with pytest.raises(ConfigError, match=sentence):
        trained_once(tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    holder.communicate("\n")
    trained_once(tmp_path, None)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "model.pt"}


def test_a_resumed_run_keeps_the_scale_of_mixed_precision(tmp_path: Path) -> None:
    """Three steps an epoch, each of which doubles the scale: 4 to 32, then to 256."""
    scales = []
    for epochs in (1, 2):
        network = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
        evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1, key_metric_name=None))
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader([{"image": torch.ones(1), "label": torch.zeros(1)}] * 3),
            network=network,
            optimizer=optimizer,
            loss_function=torch.nn.MSELoss(),
            amp_kwargs={"dtype": torch.bfloat16},
        )
        # MONAI makes a scaler at the start of a run, which needs a GPU
        trainer.add_event_handler(Events.STARTED, lambda run, own: vars(run).update(amp=True, scaler=own), scaler)
        Checkpoint(tmp_path, network, evaluator, {"optimizer": optimizer}, resume=True).attach(trainer)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="CUDA is not available or")
            trainer.run()
        scales.append(scaler.get_scale())
    assert scales == [32.0, 256.0]
