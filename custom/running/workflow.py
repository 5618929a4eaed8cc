"""One run of a bundle: MONAI's ConfigWorkflow, with checked options."""

from __future__ import annotations

import difflib
import logging
import os
import shlex
import warnings
from collections.abc import Collection, Iterable, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigWorkflow, create_workflow

from custom.errors import ConfigError
from custom.running import log
from custom.running.bundles import channels_of_run
from custom.running.data_option import is_datalist, require_channels
from custom.running.description import SECTIONS, describe_training

LEAST = {"max_epochs": 1, "val_interval": 1, "batch_size": 1, "samples_per_volume": 1, "num_workers": 0}  # of counts


class StrictWorkflow(ConfigWorkflow):
    """MONAI's ConfigWorkflow, which ignores unknown options, with checks before anything runs or is written.

    `brainmri` uses it. So does plain MONAI by
    `python -m monai.bundle run_workflow --workflow_name custom.running.StrictWorkflow --run_id training ...`.
    It takes ConfigWorkflow's arguments.

    Raises:
        ConfigError: an option or run_id that no config file has (with the nearest name); a value of another kind than
            the default (MONAI takes the text 'false' for true); a device that does not exist; an output_dir that
            cannot be written to.
    """

    def __init__(self, config_file: Any, *args: Any, **override: Any) -> None:
        own = {
            "meta_file",
            "logging_file",
            "init_id",
            "run_id",
            "final_id",
            "tracking",
            "workflow_type",
            "properties_path",
        }
        settings = {name: override.pop(name) for name in list(override) if name not in own}
        super().__init__(config_file, *args, **override)
        for name, value in settings.items():
            settings[name] = self._checked(name.removeprefix("+"), value)
        self.parser.update({name: literal(value) for name, value in settings.items()})
        if self.run_id not in self.parser:
            nearest = self._nearest(self.run_id, SECTIONS) or "."
            raise ConfigError(f"There is no run {self.run_id!r} in {config_file}{nearest}")
        data, in_channels = settings.get("data"), self.parser.get("in_channels")
        if data is not None and is_datalist(data) and isinstance(in_channels, int):
            names = channels_of_run(self.parser)
            if len(names) == in_channels > 1:  # for one channel, the transforms say what is wrong
                require_channels(data, names)
        files = [config_file] if isinstance(config_file, (str, Path)) else list(config_file)
        describe_training(self.parser, [str(file) for file in files], settings)

    def initialize(self) -> Any:
        """Resolves the config, and checks the device and the output_dir."""
        result = super().initialize()
        check_device(self.parser.get_parsed_content("device", default="cpu"))
        if "output_dir" in self.parser:
            check_writable(self.parser.get_parsed_content("output_dir"))
        return result

    def _checked(self, name: str, value: Any) -> Any:
        if name not in self.parser:
            hint = self._nearest(name) or ". docs/bundles.md lists the options."
            raise ConfigError(f"There is no option {name!r}{hint}")
        default = self.parser[name]
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            return value
        if name in SECTIONS and not isinstance(value, (dict, list, tuple)):
            raise ConfigError(f"{name} is a part of the config and no option. Use a mixin of the bundle to replace it.")
        if isinstance(default, str) and default[:1] not in ("$", "@", "%") and isinstance(value, Number):
            return str(value)  # a folder named 2026
        for kind, says in ((bool, "True or False"), (Number, "a number"), (list, "a list"), (dict, "a dict")):
            if isinstance(default, kind):
                fits = isinstance(value, (list, tuple) if kind is list else kind)
                if not fits or (kind is Number and isinstance(value, bool)):
                    raise ConfigError(f"{name} must be {says}, as its default {default!r} is; got {value!r}.")
                break
        if name == "data" and not is_datalist(value):
            raise ConfigError(f"data must be a list such as [{{'image': ['t1.nii.gz', 't2.nii.gz']}}], got {value!r}.")
        if name in LEAST:
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            if not isinstance(whole, int) or isinstance(whole, bool) or whole < LEAST[name]:
                raise ConfigError(f"{name} must be a whole number of {LEAST[name]} or more, got {value!r}.")
            return whole
        return value if "#" in name else _in_whole_numbers(name, value, default)

    def _nearest(self, name: str, sections: Collection[str] = ()) -> str:
        names = _names(self.parser.get()) if "#" in name else set(self.parser.get()) - SECTIONS | set(sections)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return f"; did you mean {close[0]!r}?" if close else ""


def _in_whole_numbers(name: str, value: Any, default: Any) -> Any:
    """The value with 2.0 as 2, if the default is a whole number or a list of them.

    Raises:
        ConfigError: the value is another number than a whole one.
    """
    numbers = default if isinstance(default, list) else [default]
    if not numbers or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return value
    for given in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not float(given).is_integer():
            kind = "whole numbers" if isinstance(default, list) else "a whole number"
            raise ConfigError(f"{name} must be {kind}, as its default {default!r} is; got {value!r}.")
    return type(value)(int(given) for given in value) if isinstance(value, (list, tuple)) else int(value)


def literal(value: Any) -> Any:
    """Text with "#" as an expression that gives it: MONAI would replace "#" by "::"."""
    if isinstance(value, dict):
        return {key: literal(content) for key, content in value.items()}
    if isinstance(value, list):  # MONAI leaves tuples as they are
        return [literal(content) for content in value]
    if isinstance(value, str) and "#" in value and value[:1] not in ("$", "@", "%"):
        text = repr(value)
        for sign in "#@%$":  # which mean something in an expression
            text = text.replace(sign, f"\\x{ord(sign):02x}")
        return f"${text}"
    return value


def _names(config: Any, prefix: str = "") -> Iterable[str]:
    """Every key of a config, nested ones as a#b."""
    if isinstance(config, dict):
        for key, value in config.items():
            if not key.startswith("_"):
                yield prefix + key
                yield from _names(value, f"{prefix}{key}#")


def check_writable(folder: str | Path) -> None:
    """Raises ConfigError if a folder cannot be made or written to."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(
            f"{folder} cannot be written to, because {place} is not a folder with write permission. Use another one."
        )


def check_device(device: str | torch.device) -> torch.device:
    """The device. Raises ConfigError if it does not exist."""
    known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"There is no device {str(device)!r} here. Use one of: {', '.join(known)}.") from error
    return checked


def run(run_id: str, files: list[str], **overrides: Any) -> Any:
    """Prints and makes one `monai.bundle run_workflow` call. Its messages go to run.log in the output_dir.

    Returns:
        The workflow, finished.
    """
    call = {"workflow_name": "custom.running.StrictWorkflow", "run_id": run_id, "config_file": files, **overrides}
    silence_duplicates()
    with log.inherited_console():
        log.take_over()
        own = {"workflow_name": StrictWorkflow, "logging_file": False}
        workflow = create_workflow(**(call | own))
        folder = workflow.parser.get_parsed_content("output_dir")
        with log.run_log(folder):
            print_call("run_workflow", call)
            workflow.run()
            workflow.finalize()
    return workflow


def say_what_is_next(workflow: Any, bundle: str, network: str | None, recipe: str | None) -> None:
    """Prints where a training wrote its weights, and the command that scores them."""
    parsed = workflow.parser.get_parsed_content
    if int(os.environ.get("RANK", "0")) > 0:
        return
    weights = Path(parsed("output_dir")) / "model.pt"
    options: dict[str, Any] = {
        "network": network,
        "recipe": recipe,
        "dataset_dir": parsed("dataset_dir"),
        "output_dir": parsed("output_dir"),
    }
    words = ["brainmri", "evaluate", bundle]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    print(f"The weights are in {weights}. Score them on the test split with:\n{shlex.join(words)}")


def print_call(function: str, arguments: Mapping[str, Any]) -> None:
    """Prints a `python -m monai.bundle` call as a shell takes it."""
    words = [f"--{name} {shlex.quote(_as_text(value))}" for name, value in arguments.items()]
    print(" ".join(["python -m monai.bundle", function, *words]), flush=True)


def _as_text(value: Any) -> str:
    """A value as MONAI's command line reads it: text that Fire would take for another value is quoted."""
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str) and DefaultParseValue(value) != value:
        return repr(value)
    return str(value)


def silence_duplicates() -> None:
    """Hides MONAI's warning about every config, and errors that Ignite logs although `brainmri` prints them."""
    warnings.filterwarnings("ignore", message="parsing config_file")
    for engine in ("SupervisedTrainer", "SupervisedEvaluator"):
        logger = logging.getLogger(f"ignite.engine.engine.{engine}")
        logger.addFilter(lambda record: record.levelno < logging.ERROR)
    logging.getLogger("monai.bundle.workflows").addFilter(lambda record: "skipping logging" not in record.getMessage())
