"""A run's curves and pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger, global_step_from_engine
from matplotlib.figure import Figure

from custom.handlers.run_files import WritesFiles
from custom.handlers.state import rank_of


class TensorBoard(WritesFiles):
    """Loss and learning rate at steps, metrics after each validation, and a picture of its first segmentation.

    The names: training/loss, lr/group_0, validation/<metric>, validation/segmentation. Attach it to the
    trainer after Checkpoint, which moves an earlier run's folder aside.

    Args:
        log_dir: the folder for the event file, output_dir/tensorboard in every bundle.
        optimizer: whose learning rate is shown.
        evaluator: the validation engine; for a picture, its outputs' "pred" and "label" are one-hot.
        labels: {0: "background", 1: "CSF", ...}, the names of the picture's labels.
        draw: custom.reports.segmentation_figure, or another function of a scan, reference labels, predicted labels
            and `labels` that returns a matplotlib Figure. None: no picture.
        every: steps from one value of loss and learning rate to the next. Each value makes CUDA wait.
    """

    files = ("tensorboard",)

    def __init__(
        self,
        log_dir: str | Path,
        optimizer: torch.optim.Optimizer,
        evaluator: Engine,
        labels: Mapping[int, str] | None = None,
        draw: Callable[..., Figure] | None = None,
        every: int = 1,
    ) -> None:
        self.log_dir = log_dir
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.labels = labels
        self.draw = draw
        self.every = every

    def attach(self, engine: Engine) -> None:
        """Starts with the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, trainer: Engine) -> None:
        if rank_of(trainer) > 0:  # of several processes only the first one writes
            return
        logger = TensorboardLogger(log_dir=str(self.log_dir))
        steps = Events.ITERATION_COMPLETED(every=self.every)
        logger.attach_output_handler(trainer, steps, tag="training", output_transform=_loss)
        logger.attach_opt_params_handler(trainer, steps, self.optimizer)
        logger.attach_output_handler(
            self.evaluator,
            Events.EPOCH_COMPLETED,
            tag="validation",
            metric_names="all",
            global_step_transform=global_step_from_engine(trainer),
        )
        if self.draw is not None:
            self._attach_picture(logger, trainer, self.draw)
        trainer.add_event_handler(Events.COMPLETED, logger.close)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, _close_and_raise, logger)

    def _attach_picture(self, logger: TensorboardLogger, trainer: Engine, draw: Callable[..., Figure]) -> None:
        picture: dict[str, Any] = {}

        @self.evaluator.on(Events.EPOCH_STARTED)
        def forget() -> None:
            picture.clear()

        @self.evaluator.on(Events.ITERATION_COMPLETED)
        def keep_first(engine: Engine) -> None:
            if not picture:
                outputs: Any = engine.state.output
                picture["scan"] = np.asarray(outputs[0]["image"].cpu())[0]
                for name, key in (("reference", "label"), ("prediction", "pred")):
                    picture[name] = np.asarray(outputs[0][key].cpu()).argmax(axis=0)

        @self.evaluator.on(Events.COMPLETED)
        def show() -> None:
            figure = draw(**picture, labels=self.labels)
            logger.writer.add_figure("validation/segmentation", figure, trainer.state.epoch)


def _loss(output: Any) -> dict[str, Any]:
    """MONAI's steps give a list with a dictionary for each image of a batch; other steps give a dictionary."""
    return {"loss": (output[0] if isinstance(output, list) else output)["loss"]}


def _close_and_raise(_: Engine, error: BaseException, logger: TensorboardLogger) -> None:
    logger.close()
    raise error
