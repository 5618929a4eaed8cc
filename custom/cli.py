"""`brainmri`: the bundles from the command line.

Every command prints the `python -m monai.bundle` call that it makes.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch starts: huge pages for large tensors

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import custom
from custom import datasets, samples
from custom.errors import ConfigError, DataError, find_cause
from custom.running.bundles import config_files, find_bundle, find_bundles, mixins, output_dir_of
from custom.running.workflow import print_call, run, silence_duplicates


class Commands:
    """Brain MRI bundles. Research use only, not a medical device."""

    def quickstart(self, folder: str = "quickstart", max_epochs: int = 100) -> None:
        """Writes a sample, trains on it, evaluates, segments, exports, and says what came of it."""
        from custom.commands import quickstart

        quickstart.main(Path(folder), max_epochs)

    def sample(self, name: str, folder: str, **options: Any) -> None:
        """Writes a small data set to try things with, in a data set's own layout: brainmri sample iseg DIR."""
        sample = _known_module(samples, name)
        write = sample.write
        _check_options(f"{name}'s sample takes", write, options, folder)
        print(f"{write(folder, **options)}: {sample.__doc__.splitlines()[0]}")

    def verify(self, name: str, folder: str) -> None:
        """Reads a whole data set and lists every problem: brainmri verify iseg DIR."""
        problems = _known_module(datasets, name).verify(folder)
        print("\n".join(problems) or f"{folder}: no problem found.")
        if problems:
            raise DataError(f"{folder} has {len(problems)} problem{'s' * (len(problems) > 1)}, listed above.")

    def prepare(self, name: str, folder: str, output_dir: str) -> None:
        """Converts a data set once to a form that reads faster: brainmri prepare brats_slices DIR --output_dir OUT."""
        module = _known_module(datasets, name)
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
        """Scores a trained network on the test split: brainmri evaluate iseg --dataset_dir D."""
        if overrides.get("split") == "unlabelled":
            raise ConfigError("The split unlabelled has no truth to score against: infer on it, or name another.")
        files = config_files(bundle, "train.json", *mixins(bundle, network, recipe, overrides), "evaluate.json")
        run("evaluating", files, **overrides)

    def infer(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Runs a trained network on new scans: brainmri infer iseg --dataset_dir D --split unlabelled."""
        files = config_files(bundle, "inference.json", *mixins(bundle, network, recipe, inference=True))
        run("inferring", files, **overrides)
        print(custom.RESEARCH_USE_ONLY)

    def baseline(self, bundle: str, recipe: Any = None, **overrides: Any) -> None:
        """Scores the simplest thing that works: brainmri baseline brats_mri_tumor, or hcp, --dataset_dir D."""
        from custom.commands.baseline import baseline

        baseline(
            find_bundle(bundle).name,
            config_files(bundle, "train.json", *mixins(bundle, None, recipe)),
            recipe,
            overrides,
        )

    def networks(self, bundle: str = "", size: int | None = None) -> None:
        """Lists networks: parameters, GFLOPs of a window (roi_size, or SIZE a side), papers: brainmri networks iseg."""
        from custom.commands.networks import network_table

        names = [find_bundle(bundle).name] if bundle else sorted(find_bundles())
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
        from custom.commands.compare import compare

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
        from custom.commands.segment import Options, check_places, segment
        from custom.commands.segment_files import check_outputs
        from custom.running import Predictor
        from custom.running.processes import local_device

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
            print_call("run", {"config_file": files, "dataset_dir": places[0], **overrides})
            if len(places) > 1:
                print(f"and the same for {len(places) - 1} more")
        silence_duplicates()
        predictor = Predictor(files, **overrides)
        print(f"Weights: {predictor.path}", flush=True)
        failed = segment(predictor, places, folder, options)
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
        from custom.commands.export import export

        files = config_files(bundle, "inference.json", *mixins(bundle, network, recipe, inference=True))
        print(custom.RESEARCH_USE_ONLY)
        return export(files, output_dir_of(files, output_dir), format, print_call, **overrides)

    def pack(
        self,
        bundle: str,
        network: str | None = None,
        output_dir: str | None = None,
        recipe: Any = None,
        **overrides: Any,
    ) -> Path:
        """Writes a zip that runs by itself elsewhere, RUN/<bundle>.zip: brainmri pack iseg --output_dir RUN."""
        from custom.commands.pack import pack

        files = config_files(bundle, "inference.json", *mixins(bundle, network, recipe, inference=True))
        folder = output_dir_of(files, output_dir)
        print(custom.RESEARCH_USE_ONLY)
        mixin_files = config_files(bundle, *mixins(bundle, network, recipe))
        return pack(find_bundle(bundle), files, mixin_files, folder, **overrides)

    def report(self, bundle: str, network: str | None = None, recipe: Any = None, **overrides: Any) -> None:
        """Draws a run's curves, a segmentation and feature maps: brainmri report iseg --dataset_dir D."""
        files = config_files(bundle, "train.json", *mixins(bundle, network, recipe, overrides), "evaluate.json")
        from custom.reports.of_run import save_report

        for path in save_report(run("evaluating", files, **overrides)):
            print(path)


def _check_options(says: str, function: Callable[..., Any], options: dict[str, Any], *given: Any) -> None:
    """Raises ConfigError, with the options that there are, where a function can't be called with these."""
    try:
        inspect.signature(function).bind(*given, **options)
    except TypeError as error:
        known = list(inspect.signature(function).parameters)[len(given) :]
        raise ConfigError(f"{says} {known} ({error}).") from error


def _known_module(package: Any, name: str) -> Any:
    if name not in package.NAMES:
        raise ConfigError(f"There is no data set {name!r}. Use one of: {', '.join(package.NAMES)}.")
    return importlib.import_module(f"{package.__name__}.{name}")


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
