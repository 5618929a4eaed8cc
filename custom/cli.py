"""`brainmri`: the bundles from the command line.

Every command prints the `python -m monai.bundle` call that it makes.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch starts: huge pages for large tensors

import importlib
import inspect
import json
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import custom
from custom.errors import ConfigError, DataError, find_cause


def find_bundle(part: str) -> Path:
    """The folder of the one bundle whose name has this part."""
    names = custom.bundles()
    found = [name for name in names if part == name] or [name for name in names if part in name]
    if len(found) != 1:
        raise ConfigError(f"{part!r} names {found or 'no bundle'}: write enough of one of {sorted(names)}.")
    return names[found[0]]


def config_files(bundle: str, *names: str | None) -> list[str]:
    """Paths of a bundle's config files; None stands for a mixin that wasn't asked for."""
    folder = find_bundle(bundle) / "configs"
    for path in (folder / name for name in names if name):
        if not path.is_file():
            there = sorted(other.stem for other in path.parent.glob("*.json"))
            raise ConfigError(f"There is no {path.stem!r} in {path.parent}: name one of {there}.")
    return [str(folder / name) for name in names if name]


def run(run_id: str, files: list[str], **overrides: Any) -> Any:
    """Prints and makes one `monai.bundle run_workflow` call; returns the workflow."""
    call = {"workflow_name": "custom.workflow.StrictWorkflow", "run_id": run_id, "config_file": files, **overrides}
    _print_call("run_workflow", call)
    from monai.bundle import create_workflow

    from custom.workflow import StrictWorkflow

    _say_errors_once()
    workflow = create_workflow(**(call | {"workflow_name": StrictWorkflow}))
    workflow.run()
    workflow.finalize()
    return workflow


def _print_call(function: str, arguments: dict[str, Any]) -> None:
    words = [f"--{name} {shlex.quote(_as_text(value))}" for name, value in arguments.items()]
    print(" ".join(["python -m monai.bundle", function, *words]), flush=True)


def _as_text(value: Any) -> str:
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    return str(value)


def _say_errors_once() -> None:
    """MONAI warns of every config, and Ignite logs an error that `main` prints anyway."""
    warnings.filterwarnings("ignore", message="parsing config_file")
    for engine in ("SupervisedTrainer", "SupervisedEvaluator"):
        logger = logging.getLogger(f"ignite.engine.engine.{engine}")
        logger.addFilter(lambda record: record.levelno < logging.ERROR)
    logging.getLogger("monai.bundle.workflows").addFilter(lambda record: "skipping logging" not in record.getMessage())


def mixins(
    bundle: str, network: str | None, recipe: Any, overrides: Mapping[str, Any] | None = None, inference: bool = False
) -> list[str]:
    """A network's file and those of one recipe or several (a list, or 'a,b'), as config_files takes them.

    With `overrides`, a folder with a dataset.json brings the recipe own_scans in, where the bundle has it. For
    inference, recipes of the training alone are left out, and it is said.
    """
    given = recipe if isinstance(recipe, (list, tuple)) else str(recipe or "").split(",")
    names = [name for name in (str(one).strip() for one in given) if name]
    own = find_bundle(bundle) / "configs" / "recipes" / "own_scans.json"
    folder = (overrides or {}).get("dataset_dir")
    if not names and own.is_file() and folder and (Path(str(folder)) / "dataset.json").is_file():
        names = ["own_scans"]
    if inference:
        of_training = [name for name in names if _changes_training_only(bundle, name)]
        names = [name for name in names if name not in of_training]
        if of_training:
            print(f"{', '.join(of_training)}: of the training only, left out here.")
    return [*([f"networks/{network}.json"] if network else []), *(f"recipes/{name}.json" for name in names)]


def _changes_training_only(bundle: str, recipe: str) -> bool:
    """Whether a recipe sets nested keys that inference.json hasn't."""
    (base,) = config_files(bundle, "inference.json")
    (own,) = config_files(bundle, f"recipes/{recipe}.json")
    known, keys = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (base, own))
    return any("#" in key and key.split("#")[0] not in known for key in keys)


class Commands:
    """Brain MRI bundles. Research use only, not a medical device."""

    def quickstart(self, folder: str = "quickstart", max_epochs: int = 100) -> None:
        """Writes a sample, trains on it, evaluates, segments, exports, and says what came of it."""
        from custom import quickstart

        quickstart.main(Path(folder), max_epochs)

    def sample(self, name: str, folder: str, **options: Any) -> None:
        """Writes a small data set to try things with, in a data set's own layout: brainmri sample iseg DIR."""
        sample = _module("samples", name)
        write = sample.write
        _check_options(f"{name}'s sample takes", write, options, folder)
        print(f"{write(folder, **options)}: {sample.__doc__.splitlines()[0]}")

    def verify(self, name: str, folder: str) -> None:
        """Reads a whole data set and lists every problem: brainmri verify iseg DIR."""
        problems = _module("datasets", name).verify(folder)
        print("\n".join(problems) or f"{folder}: no problem found.")
        if problems:
            raise DataError(f"{folder} has {len(problems)} problem{'s' * (len(problems) > 1)}, listed above.")

    def prepare(self, name: str, folder: str, output_dir: str) -> None:
        """Converts a data set once to a form that reads faster: brainmri prepare brats_slices DIR --output_dir OUT."""
        module = _module("datasets", name)
        if not hasattr(module, "prepare"):
            raise ConfigError(f"{name} needs no preparing: train on it as it is.")
        print(f"{module.prepare(folder, output_dir)}: name it as --dataset_dir.")

    def download(self, name: str, folder: str) -> None:
        """Gets a data set that may be had freely, or says where to register for it: brainmri download msd DIR."""
        from custom.datasets import download

        print(download.download(name, folder))

    def train(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Trains a bundle: brainmri train iseg --dataset_dir D [--network vnet] [--max_epochs 5]."""
        files = config_files(bundle, "train.json", *mixins(bundle, network, recipe, overrides))
        run("training", files, **overrides)

    def evaluate(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Scores a trained network on the test section: brainmri evaluate iseg --dataset_dir D."""
        if overrides.get("section") == "unlabelled":
            raise ConfigError("The section unlabelled has no truth to score against: infer on it, or name another.")
        files = config_files(bundle, "train.json", *mixins(bundle, network, recipe, overrides), "evaluate.json")
        run("evaluating", files, **overrides)

    def infer(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Runs a trained network on new scans: brainmri infer iseg --dataset_dir D --section unlabelled."""
        files = config_files(bundle, "inference.json", *mixins(bundle, network, recipe, inference=True))
        run("inferring", files, **overrides)
        print(custom.RESEARCH_USE_ONLY)

    def baseline(self, bundle: str, recipe: Any = None, **overrides: Any) -> None:
        """Scores the simplest thing that works: brainmri baseline brats_mri_tumor, or hcp, --dataset_dir D."""
        name = find_bundle(bundle).name
        if name not in BASELINES:
            raise ConfigError(f"There is no baseline for {name} here: {' and '.join(BASELINES)} have one.")
        BASELINES[name](config_files(bundle, "train.json", *mixins(bundle, None, recipe)), recipe, overrides)

    def networks(self, bundle: str = "", size: int | None = None) -> None:
        """Lists networks: parameters, GFLOPs of a window (roi_size, or SIZE a side), papers: brainmri networks iseg."""
        from custom.network_table import network_table

        names = [find_bundle(bundle).name] if bundle else sorted(custom.bundles())
        print("\n\n".join(f"{name}\n{network_table(name, size).to_string(index=False)}" for name in names))

    def compare(
        self,
        bundle: str,
        networks: Any = "default",
        seeds: Any = 0,
        output_dir: str | None = None,
        recipe: Any = None,
        summary: bool = True,
        **overrides: Any,
    ) -> None:
        """Trains and scores several networks alike: brainmri compare brats_mri_slice --networks classic,attention."""
        from custom.compare import compare

        names = [str(name) for name in (networks if isinstance(networks, (list, tuple)) else str(networks).split(","))]
        numbers = list(seeds) if isinstance(seeds, (list, tuple)) else [seeds]
        folder = Path(output_dir or f"runs/{find_bundle(bundle).name}/comparison").expanduser()
        recipe = ",".join(map(str, recipe)) if isinstance(recipe, (list, tuple)) else recipe
        for path in compare(bundle, names, numbers, folder, recipe, summary, **overrides):
            print(path)
        print(custom.RESEARCH_USE_ONLY)

    def segment(
        self,
        *scans: str,
        output_dir: str = "segmentations",
        outputs: Any = "tissues",
        from_mask: str | None = None,
        joint: bool = False,
        figure: bool = True,
        bundle: str = "brain_mri_tissue",
        **overrides: Any,
    ) -> None:
        """Segments scans, whole heads of any contrast: brainmri segment SCAN, FOLDER or LIST.txt [--output_dir DIR].

        --outputs tissues,structures,mask,brain,probabilities chooses what is written; --from_mask takes a brain mask;
        --joint True segments the scans of one subject together (docs/segment.md).
        """
        from custom.processes import local_device
        from custom.running import Segmenter
        from custom.segment import Options, check_places, segment
        from custom.segment_files import check_outputs

        files = config_files(bundle, "inference.json")
        places = check_places(scans)
        for name, value in {"joint": joint, "figure": figure}.items():
            if not isinstance(value, bool):
                raise ConfigError(f"{name} must be True or False, got {value!r}: name scans before the options.")
        folder = Path(str(output_dir)).expanduser()
        mask = None if from_mask is None else Path(str(from_mask)).expanduser()
        options = Options(check_outputs(outputs), figure, mask, joint)
        if "LOCAL_RANK" in os.environ:
            overrides.setdefault("device", str(local_device()))
        overrides["output_dir"] = str(folder)
        if not (joint or from_mask):
            _print_call("run", {"config_file": files, "dataset_dir": places[0], **overrides})
            if len(places) > 1:
                print(f"and the same for {len(places) - 1} more")
        _say_errors_once()
        segmenter = Segmenter(files, **overrides)
        print(f"Weights: {segmenter.path}", flush=True)
        failed = segment(segmenter, places, folder, options)
        print(f"Labels, figures and volumes.csv are in {folder}. {custom.RESEARCH_USE_ONLY}")
        if failed and "WORLD_SIZE" not in os.environ:  # there, an exit code would make torchrun stop the other shares
            raise DataError(f"{failed} of the scans couldn't be segmented, as listed above.")

    def label(self, studies: str, bundles: Any = "", environment: str = ".venv-label", **settings: Any) -> None:
        """Serves bundles to 3D Slicer and OHIF by MONAI Label: brainmri label --studies DIR|URL --bundles iseg.

        Further settings: --weights, --runs, --host, --port, --token, --origins, --public_url, --allow_simulated,
        --largest_upload_mb (docs/serving.md).
        """
        from custom.serving.start import start

        names = ",".join(map(str, bundles)) if isinstance(bundles, (list, tuple)) else str(bundles)
        start({"studies": str(studies), "bundles": names, **settings}, Path(environment))

    def export(
        self,
        bundle: str,
        network: str | None = None,
        output_dir: str | None = None,
        format: str = "torchscript",
        recipe: Any = None,
        **overrides: Any,
    ) -> Path:
        """Exports a trained network beside its weights, and checks it: brainmri export iseg [--format onnx]."""
        from custom.export import export

        files = config_files(bundle, "inference.json", *mixins(bundle, network, recipe, inference=True))
        print(custom.RESEARCH_USE_ONLY)
        return export(files, _output_dir(files, output_dir), format, _print_call, **overrides)

    def pack(
        self,
        bundle: str,
        network: str | None = None,
        output_dir: str | None = None,
        recipe: Any = None,
        **overrides: Any,
    ) -> Path:
        """Writes a zip that runs by itself elsewhere, RUN/<bundle>.zip: brainmri pack iseg --output_dir RUN."""
        from custom.pack import pack

        folder = _output_dir(config_files(bundle, "inference.json"), output_dir)
        exported = self.export(bundle, network, str(folder), recipe=recipe, **overrides)
        root = find_bundle(bundle)
        settings: dict[str, Any] = {}
        for mixin in config_files(bundle, *mixins(bundle, network, recipe)):
            for key, value in json.loads(Path(mixin).read_text(encoding="utf-8")).items():
                settings.pop(key, None)  # so that the later one also comes later
                settings[key] = value
        settings.pop("_desc_", None)
        weights = Path(overrides.pop("ckpt_path", folder / "model.pt"))
        return pack(root, weights, exported, folder / f"{root.name}.zip", settings | overrides)

    def report(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Draws a run's curves, a segmentation and feature maps: brainmri report iseg --dataset_dir D."""
        files = config_files(bundle, "train.json", *mixins(bundle, network, recipe, overrides), "evaluate.json")
        from custom.reports.of_run import save_report

        for path in save_report(run("evaluating", files, **overrides)):
            print(path)


def _hcp_baselines(files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.hcp import hcp_baselines

    if "regression" in str(recipe):
        raise ConfigError("The baselines of hcp take a regression by --kind regression: leave the recipe out.")
    _check_options("The baselines of hcp take", hcp_baselines, settings, files)
    hcp_baselines(files, **settings)


def _flair_threshold(files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.of_bundle import flair_threshold

    if "intensity_" in str(recipe):
        raise ConfigError(f"The FLAIR threshold is in deviations of the brain: leave {recipe} out.")
    flair_threshold(files, **settings)


def _pooled_intensities(files: list[str], recipe: Any, settings: dict[str, Any]) -> None:
    from custom.baselines.pooled_intensities import pooled_intensities

    pooled_intensities(files, **settings)


BASELINES = {
    "brain_mri_tumor_classification": _pooled_intensities,
    "brats_mri_tumor_segmentation": _flair_threshold,
    "hcp_mri_classification": _hcp_baselines,
}


def _check_options(says: str, function: Callable[..., Any], options: dict[str, Any], *given: Any) -> None:
    """Raises ConfigError, with the options that there are, where a function can't be called with these."""
    try:
        inspect.signature(function).bind(*given, **options)
    except TypeError as error:
        known = list(inspect.signature(function).parameters)[len(given) :]
        raise ConfigError(f"{says} {known} ({error}).") from error


def _output_dir(files: list[str], given: str | None) -> Path:
    """Where a run of these configs writes when it isn't told."""
    return Path(given or json.loads(Path(files[0]).read_text(encoding="utf-8"))["output_dir"])


def _module(room: str, name: str) -> Any:
    folder = Path(custom.__file__).parent / room
    entry = {"samples": "\ndef write(", "datasets": "\ndef verify("}[room]
    there = sorted(path.stem for path in folder.glob("[a-z]*.py") if entry in path.read_text(encoding="utf-8"))
    if name not in there:
        raise ConfigError(f"There is no data set {name!r}: name one of {there}.")
    return importlib.import_module(f"custom.{room}.{name}")


def main() -> None:
    """Runs a command; what a user can mend ends as one sentence and exit code 1."""
    import fire

    try:
        fire.Fire(Commands, name="brainmri")
    except KeyboardInterrupt:
        print(
            "\nbrainmri: stopped. What finished epochs learned is kept; --resume True goes on with it.", file=sys.stderr
        )
        sys.exit(130)
    except Exception as error:
        if cause := find_cause(error):
            sys.exit(f"brainmri: {cause}")
        raise


if __name__ == "__main__":
    main()
