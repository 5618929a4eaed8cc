"""Checkpoints that a kill, a full disk or a second run can't spoil."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LambdaLR

import custom
from custom.checkpoints.find import trained_weights
from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import device_name, subjects_of, versions, write_record
from custom.errors import CheckpointError, WriteError
from custom.files import set_aside, written_whole
from custom.handlers.run_files import WritesFiles, run_files
from custom.locks import release, take_run

logger = logging.getLogger(__name__)
# Engines are Any below: MONAI's have a scaler, and a state with more attributes, than Ignite's types know.


class Checkpoint(WritesFiles):
    """Keeps a run's state after every epoch, and its best weights.

    `last.pt` holds everything that a resumed run needs; `model.pt` holds the weights of the best validation (the
    latest ones before the first validation), and is what evaluation, inference and export read. Both load with
    weights_only=True, are written to a temporary name, synced and renamed, so there is a whole one at every moment;
    the first is written before the first epoch. With `dataset_dir`, `model.json` beside `model.pt` is the record of the
    weights (custom.checkpoints.record): later commands take labels and options from it.

    A new run in a folder that holds an earlier one moves that into earlier/<time of its last epoch>. Attach it
    after the handlers whose state it keeps, so that they have seen the epoch that it saves.

    Of several processes the first one writes; all restore. No other run can write to the folder meanwhile.

    Args:
        output_dir: where the files go.
        network: the bare network (not wrapped for several processes).
        evaluator: the validation engine, whose best metric decides which epoch is the best.
        objects: whatever else has state_dict() and load_state_dict(): {"optimizer": ..., "lr_scheduler": ...}.
        resume: go on after the last finished epoch, if there is one. A learning rate given by a function of the
            step (LambdaLR) follows this run's schedule, so that a longer max_epochs stretches it.
        dataset_dir: the data that the weights are trained on.
        weights: the network whose weights model.pt receives, where it isn't `network`: a moving average.
        record: what the config declares about the weights: {"bundle": name, "labels": {0: "background", ...},
            "channels": (...), "training": list of the training's data, "validation": the same}.
        describe: gives the run's options. custom.running.StrictWorkflow sets it.

    Raises:
        ConfigError: at the start, when another process trains in the folder.
        CheckpointError: at the start, when `resume` meets a damaged file or another network's; after an epoch,
            when the disk is full (the last whole checkpoint stays).
    """

    files = ("last.pt", "model.pt", "model.json")

    def __init__(
        self,
        output_dir: str | Path,
        network: torch.nn.Module,
        evaluator: Any,
        objects: Mapping[str, Any],
        resume: bool = False,
        dataset_dir: str | Path | None = None,
        weights: torch.nn.Module | None = None,
        record: Mapping[str, Any] | None = None,
        describe: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.record = dict(record or {})
        self.describe = describe
        self.described: Mapping[str, Any] = {}
        self.weights = network if weights is None else weights
        self.dataset_dir = dataset_dir
        self.folder = Path(output_dir)
        self.network = network
        self.evaluator = evaluator
        self.objects = dict(objects)
        self.resume = resume
        self.saved_best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Saves at the start of the engine and after each epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _start(self, engine: Any) -> None:
        if engine.state.rank == 0:
            # a run that fails keeps the lock until its engine is gone: an Ignite handler of exceptions would hide them
            give_back = weakref.finalize(self, release, take_run(self.folder))
            engine.add_event_handler(Events.COMPLETED, lambda: give_back())
        if self.resume and (self.folder / "last.pt").exists():
            self._restore(engine)
            return
        if self.resume:
            logger.info("There is no last.pt in %s: starting with the first epoch.", self.folder)
        if engine.state.rank == 0:
            self._set_aside()
        self._save(engine)

    def _set_aside(self) -> None:
        if earlier := set_aside(self.folder, run_files()):
            logger.info("The earlier run of %s is kept in %s.", self.folder, earlier)

    def _restore(self, engine: Any) -> None:
        path = self.folder / "last.pt"
        state = load_checkpoint(path)
        if missing := {"network", "trainer", "evaluator", *self.objects} - set(state):
            raise CheckpointError(f"{path} has no {sorted(missing)}. It is no checkpoint of this kind of run.")
        load_weights(self.network, state["network"], path)
        epoch, iteration = (state["trainer"][name] for name in ("epoch", "iteration"))
        # With another batch size or number of processes an epoch has another length.
        engine.state.epoch, engine.state.iteration = epoch, epoch * engine.state.epoch_length
        for name, thing in self.objects.items():
            if isinstance(thing, LambdaLR):
                _restore_position(thing, state[name]["last_epoch"], iteration, engine.state.iteration)
            else:
                thing.load_state_dict(state[name])
        if engine.scaler is not None and "scaler" in state:
            engine.scaler.load_state_dict(state["scaler"])
        for key, value in state["evaluator"].items():
            setattr(self.evaluator.state, key, value)
        self.saved_best = state["evaluator"]["best_metric"] if state["evaluator"]["best_metric_epoch"] > 0 else None
        logger.info("Going on after epoch %d of %s.", engine.state.epoch, path)

    def _save(self, engine: Any) -> None:
        best = self.evaluator.state.best_metric
        if engine.state.rank > 0:
            return
        state = {
            "network": self.network.state_dict(),
            "trainer": {"epoch": engine.state.epoch, "iteration": engine.state.iteration},
            "evaluator": {"best_metric": best, "best_metric_epoch": self.evaluator.state.best_metric_epoch},
            **{name: thing.state_dict() for name, thing in self.objects.items()},
        }
        if engine.scaler is not None:
            state["scaler"] = engine.scaler.state_dict()
        try:
            unvalidated = self.evaluator.state.best_metric_epoch < 1
            if engine.state.epoch > 0 and (unvalidated or best != self.saved_best):
                with written_whole(trained_weights(self.folder)) as partial:
                    torch.save(self.weights.state_dict(), partial)
                if self.dataset_dir is not None:
                    write_record(trained_weights(self.folder), self.dataset_dir, **self._record(engine))
                self.saved_best = None if unvalidated else best
            with written_whole(self.folder / "last.pt") as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError, WriteError) as error:
            raise CheckpointError(
                f"{self.folder} cannot be written to ({error}). Free some space or use another output_dir, "
                "then continue with --resume True."
            ) from error

    def _record(self, engine: Any) -> dict[str, Any]:
        """What is known about the weights that were just written, as JSON takes it."""
        if self.describe is not None and not self.described:
            self.described = self.describe()
        declared = dict(self.record)
        if "labels" in declared:
            declared["labels"] = {str(code): str(name) for code, name in declared["labels"].items()}
        for split in {"training", "validation"} & set(declared):
            declared[split] = subjects_of(declared[split])
        state = self.evaluator.state
        validated = state.best_metric_epoch > 0
        score = {"name": state.key_metric_name, "value": float(state.best_metric)} if validated else None
        device = next(self.network.parameters()).device
        about = {"epoch": engine.state.epoch, "score": score, "versions": versions(), "device": device_name(device)}
        return declared | about | dict(self.described) | {"note": custom.RESEARCH_USE_ONLY}


def _restore_position(schedule: LambdaLR, step: int, iteration_then: int, iteration_now: int) -> None:
    """Puts a schedule where it was, counted in this run's iterations when it counts iterations."""
    schedule.last_epoch = iteration_now if step == iteration_then else step
    rates = [
        base * rate(schedule.last_epoch) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    schedule._last_lr = rates
    schedule._step_count = schedule.last_epoch + 1  # as in a run without a stop: making a schedule is its first step
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
