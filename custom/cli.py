"""`brainmri`: the bundles from the command line.

Each command is one function. It prints the `python -m monai.bundle` call if it makes one.
"""

from __future__ import annotations

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch starts: huge pages for large tensors

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import custom
from custom.commands.command_line import CommandLine
from custom.commands.meanings import OPTIONS, STOPPED, VARIABLE_OPTIONS
from custom.commands.options import as_path, typed
from custom.errors import ConfigError, find_cause
from custom.files import without_partial
from custom.running import log
from custom.running.bundles import config_files, find_bundle, mixins


def quickstart(folder: str = "quickstart", /, max_epochs: int = 100) -> None:
    """Segments a real scan, then trains on a small sample, evaluates, segments and exports."""
    from custom.commands import quickstart

    quickstart.main(Path(folder), max_epochs)


def sample(name: str, folder: str, **options: Any) -> None:
    """Writes a small data set to try things with: brainmri sample iseg DIR."""
    from custom.commands.data_sets import sample

    sample(name, folder, options)


def verify(name: str, folder: str = "", /) -> None:
    """Reads a whole data set and lists every problem: brainmri verify DIR, or brainmri verify iseg DIR."""
    from custom.commands.data_sets import verify

    verify(name, folder)


def prepare(name: str, folder: str, *, output_dir: str) -> None:
    """Converts a data set once to a form that reads faster: brainmri prepare brats_slices DIR --output_dir OUT."""
    from custom.commands.data_sets import prepare

    prepare(name, folder, output_dir)


def download(name: str, folder: str) -> None:
    """Downloads a free data set; for another one, an error says where to register: brainmri download msd DIR."""
    from custom.datasets import download

    print(download.download(name, folder))


def plan(folder: str, *, output_dir: str | None = None) -> None:
    """Plans a bundle for a folder of labelled scans, and says why: brainmri plan DIR."""
    from custom.commands.plan import plan

    plan(folder, output_dir)


def train(
    bundle: str, *, network: str | None = None, recipe: str | None = None, folds: str = "", **overrides: Any
) -> None:
    """Trains a bundle: brainmri train DIR, or brainmri train iseg --dataset_dir DIR [--network vnet]."""
    from custom.commands.plan import what_to_plan
    from custom.running.workflow import run, say_what_is_next

    if planned := what_to_plan(bundle, overrides.get("dataset_dir")):
        from custom.commands.train_folder import train_folder

        train_folder(planned, network, recipe, folds, overrides)
        return
    if folds:
        raise ConfigError("--folds is for a folder of labelled scans: brainmri train DIR --folds all.")
    files = config_files(bundle, "train.json", *mixins(bundle, network, recipe))
    workflow = run("training", files, **typed(files, overrides))
    say_what_is_next(workflow, bundle, network, recipe)


def pretrain(bundle: str, **overrides: Any) -> None:
    """Pretrains a ViT on images without labels, for train --from_weights: brainmri pretrain tumor_class."""
    from custom.commands.pretrain import pretrain

    pretrain(bundle, overrides)


def evaluate(bundle: str, *, network: str | None = None, recipe: str | None = None, **overrides: Any) -> None:
    """Scores a trained network on the test split: brainmri evaluate iseg --dataset_dir DIR."""
    from custom.commands.trained import trained_call
    from custom.running.workflow import run

    if overrides.get("split") == "unlabelled":
        raise ConfigError("The split unlabelled has no reference labels to score against. Use brainmri infer for it.")
    files, settings = trained_call("evaluating", bundle, network, recipe, overrides)
    run("evaluating", files, **settings)


def infer(bundle: str, *, network: str | None = None, recipe: str | None = None, **overrides: Any) -> None:
    """Runs a trained network on new scans: brainmri infer iseg --dataset_dir DIR --split unlabelled."""
    from custom.commands.trained import trained_call
    from custom.running.workflow import run

    files, settings = trained_call("inferring", bundle, network, recipe, overrides)
    workflow = run("inferring", files, **settings)
    print(f"The results are in {workflow.parser.get_parsed_content('output_dir')}. {custom.RESEARCH_USE_ONLY}")


def baseline(bundle: str, *, recipe: str | None = None, **overrides: Any) -> None:
    """Scores a simple method for comparison: brainmri baseline brats_mri_tumor (or hcp, tumor_class)."""
    from custom.commands.baseline import baseline

    files = config_files(bundle, "train.json", *mixins(bundle, None, recipe))
    baseline(find_bundle(bundle).name, files, recipe, typed(files, overrides))


def survival(dataset_dir: str, **options: Any) -> None:
    """Predicts survival from tumor labels and age, beside age alone: brainmri survival DIR."""
    from custom.commands.survival import survival

    survival(dataset_dir, options)


def networks(bundle: str = "", /, size: int | None = None) -> None:
    """Lists networks with parameters, GFLOPs of one window and papers: brainmri networks iseg."""
    from custom.commands.networks import network_tables

    print(network_tables(bundle, size))


def compare(
    bundle: str,
    *,
    networks: str = "default",
    seeds: str = "0",
    output_dir: str | None = None,
    recipe: str | None = None,
    summary: bool = True,
    **overrides: Any,
) -> None:
    """Trains and scores several networks alike: brainmri compare brats_mri_slice --networks classic,attention."""
    from custom.commands.compare import compare_call

    compare_call(bundle, networks, seeds, output_dir, recipe, summary, overrides)


def segment(
    *scans: str,
    output_dir: str = "segmentations",
    outputs: str = "tissues",
    from_mask: str | None = None,
    joint: bool = False,
    figure: bool = True,
    wide: bool = False,
    report: bool = False,
    bundle: str = "brain_mri_tissue",
    studies: str = "",
    query: str = "",
    store: bool = False,
    **overrides: Any,
) -> None:
    """Segments scans, whole heads of any contrast: brainmri segment SCAN, FOLDER or LIST.txt [--output_dir DIR]."""
    if studies or query or store:
        from custom.serving.start import start_batch

        given = {"studies": studies, "query": query, "store": store, "bundle": bundle}
        start_batch(scans, given | {"output_dir": as_path(output_dir)} | overrides)
        return
    from custom.commands.segment_call import segment_call
    from custom.commands.segment_files import check_outputs
    from custom.commands.segment_jobs import Options

    mask = None if from_mask is None else Path(from_mask).expanduser()
    options = Options(check_outputs(outputs), figure, mask, joint, wide, report)
    segment_call(scans, Path(as_path(output_dir)).expanduser(), options, bundle, overrides)


def volumes(folder: str, wide: bool = False) -> None:
    """Measures labels again, as after corrections by hand, and writes volumes.csv: brainmri volumes DIR."""
    from custom.commands.volumes import measure_again

    for path in measure_again(Path(as_path(folder)).expanduser(), wide):
        print(path)
    print(custom.RESEARCH_USE_ONLY)


def bundles(*places: str, runs: str = "runs") -> None:
    """Lists bundles, and whether they can be served: brainmri bundles [BUNDLE or FOLDER of bundles]."""
    from custom.commands.bundles import bundle_table

    print(bundle_table(places, Path(as_path(runs)).expanduser()))


def label(*, studies: str, bundles: str = "", environment: str = ".venv-label", **settings: Any) -> None:
    """Serves bundles to 3D Slicer and OHIF by MONAI Label: brainmri label --studies DIR --bundles iseg."""
    from custom.serving.start import start

    start({"studies": studies, "bundles": bundles, **settings}, Path(environment))


def export(
    bundle: str,
    *,
    network: str | None = None,
    output_dir: str | None = None,
    format: str = "torchscript",
    recipe: str | None = None,
    **overrides: Any,
) -> Path:
    """Exports a trained network beside its weights, and checks it: brainmri export iseg [--format onnx]."""
    from custom.commands.export import export
    from custom.commands.trained import folder_of_run, trained_call
    from custom.running.workflow import print_call

    given = overrides if output_dir is None else {"output_dir": as_path(output_dir), **overrides}
    files, settings = trained_call("inferring", bundle, network, recipe, given)
    print(custom.RESEARCH_USE_ONLY)
    return export(files, folder_of_run(files, settings), format, print_call, **settings)


def pack(
    bundle: str,
    *,
    network: str | None = None,
    output_dir: str | None = None,
    recipe: str | None = None,
    **overrides: Any,
) -> Path:
    """Writes a zip that runs by itself elsewhere, RUN/<bundle>.zip: brainmri pack iseg --output_dir RUN."""
    from custom.commands.pack import pack
    from custom.commands.trained import folder_of_run, trained_call

    given = overrides if output_dir is None else {"output_dir": as_path(output_dir), **overrides}
    files, settings = trained_call("inferring", bundle, network, recipe, given)
    print(custom.RESEARCH_USE_ONLY)
    return pack(find_bundle(bundle), files, network, recipe, folder_of_run(files, settings), **settings)


def report(
    bundle: str, *, network: str | None = None, recipe: str | None = None, names: bool = False, **overrides: Any
) -> None:
    """Draws a run's curves and figures: brainmri report iseg; or a page of segmentations: brainmri report DIR."""
    if Path(as_path(bundle)).expanduser().is_dir():
        from custom.commands.cohort_report import write_report

        print(write_report(Path(as_path(bundle)).expanduser(), names))
        return
    from custom.commands.trained import trained_call
    from custom.reports.of_run import save_report
    from custom.running.workflow import run

    files, settings = trained_call("evaluating", bundle, network, recipe, overrides)
    for path in save_report(run("evaluating", files, **settings)):
        print(path)


def completion(shell: str) -> None:
    """Prints a completion script: source <(brainmri completion bash), see docs/command-line.md."""
    from custom.commands.completion import script

    print(script(shell, COMMANDS))


FUNCTIONS = (quickstart, segment, plan, train, pretrain, evaluate, infer, report, volumes, export, pack, compare,
    baseline, survival, networks, bundles, label, sample, verify, prepare, download, completion)  # fmt: skip
COMMANDS = CommandLine(
    {function.__name__: function for function in FUNCTIONS},
    OPTIONS,
    f"Brain MRI Bundles: segmentation and classification of brain MRI. {custom.RESEARCH_USE_ONLY}",
    f"brainmri {custom.__version__}",
    VARIABLE_OPTIONS,
)


def main(words: Sequence[str] | None = None) -> None:
    """Runs a command. Mistakes that a user can correct end as one sentence: exit code 1, or 2 for a wrong call."""
    call = COMMANDS.read(sys.argv[1:] if words is None else words)
    with log.console(call.quiet, call.verbose):
        try:
            written = call()
            if isinstance(written, Path):
                print(written)
        except KeyboardInterrupt:
            print(f"\nbrainmri: stopped{STOPPED.get(call.function.__name__, '')}.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if cause := find_cause(error):
                sys.exit(f"brainmri: {without_partial(str(cause))}")
            raise


if __name__ == "__main__":
    main()
