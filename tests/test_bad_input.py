"""What a user gets wrong ends as one sentence, exit code 1, and nothing new on the disk."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from custom import cli
from custom.checkpoints.load import load_checkpoint
from tests.conftest import SMALL_RUN, Brainmri
from tests.test_iseg import BAD_DATA

TRAIN = ["train", "iseg", "--dataset_dir", "iseg", "--output_dir", "run", "--max_epochs", "1", *SMALL_RUN]
INFER = ["infer", "iseg", "--dataset_dir", "iseg", "--output_dir", "run", "--roi_size", "[32,32,32]"]
EVALUATE = ["evaluate", *INFER[1:]]


def nothing(folder: Path) -> None:
    """The data is good; the call isn't."""


def in_iseg(spoil: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: spoil(folder / "iseg")


def a_file(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("mine")


def weights(content: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "run").mkdir()
        torch.save(content, folder / "run/model.pt")

    return write


def cut_weights(folder: Path) -> None:
    weights({"weight": torch.zeros(1000)})(folder)
    path = folder / "run/model.pt"
    path.write_bytes(path.read_bytes()[:1500])


def a_checkpoint_cut_short(folder: Path) -> None:
    cut_weights(folder)
    (folder / "run/model.pt").rename(folder / "run/last.pt")


def another_checkpoint(folder: Path) -> None:
    (folder / "run").mkdir()
    parts = {name: {} for name in ("trainer", "evaluator", "optimizer", "lr_scheduler")}
    torch.save({"network": {"weight": torch.zeros(3)}, **parts}, folder / "run/last.pt")


CASES = {
    **{f"train, {name}": (TRAIN, in_iseg(spoil), sentence) for name, (spoil, sentence) in BAD_DATA.items()},
    "no folder": (
        [*TRAIN, "--dataset_dir", "nowhere"],
        nothing,
        r"There is no folder nowhere\. Give the folder of your data \(--dataset_dir\)\. Ask for iSeg at .*, or",
    ),
    "empty folder": (
        [*TRAIN, "--dataset_dir", "hollow"],
        lambda folder: (folder / "hollow").mkdir(),
        r"The folder hollow is empty\. Ask for iSeg",
    ),
    "no iSeg in it": (
        [*TRAIN, "--dataset_dir", "other"],
        lambda folder: (folder / "other/x").mkdir(parents=True),
        r"other holds no file like subject-1-T1\.hdr\. Ask for iSeg",
    ),
    "misspelt override": (
        [*TRAIN, "--max_epoch", "1"],
        nothing,
        r"no option 'max_epoch'; did you mean 'max_epochs'\?",
    ),
    "misspelt nested override": (
        [*TRAIN, "--train#trainer#max_epoch", "1"],
        nothing,
        r"no option 'train#trainer#max_epoch'; did you mean 'train#trainer#max_epochs'\?",
    ),
    "text for a truth value": (
        [*TRAIN, "--resume", "maybe"],
        nothing,
        r"resume must be True or False, as its default False is; got 'maybe'",
    ),
    "text for a number": ([*TRAIN, "--batch_size", "two"], nothing, r"batch_size must be a number, .* got 'two'"),
    "no value": ([*TRAIN, "--fold"], nothing, r"--fold needs a value"),
    "number for a list": ([*TRAIN, "--roi_size", "32"], nothing, r"roi_size must be a list, .* got 32"),
    "no such bundle": (
        ["train", "spleen"],
        nothing,
        r"'spleen' matches no bundle\. Use a unique part of one of: .*iseg_mri_tissue_segmentation",
    ),
    "no such network": (
        ["train", "iseg", "--network", "resnet"],
        nothing,
        r"networks has no file resnet\.json\. Use one of: ",
    ),
    "no such device": (
        [*TRAIN, "--device", "cuda:7"],
        nothing,
        r"There is no device 'cuda:7' here\. Use one of: cpu",
    ),
    "misspelt device": ([*TRAIN, "--device", "gpu"], nothing, r"There is no device 'gpu' here\. Use one of: cpu"),
    "output under a file": (
        [*TRAIN, "--output_dir", "thesis.txt/run"],
        a_file("thesis.txt"),
        r"thesis\.txt/run cannot be written to, because .*thesis\.txt is not a folder with write permission\. Use",
    ),
    "resume, cut short": (
        [*TRAIN, "--resume", "True"],
        a_checkpoint_cut_short,
        r"run/last\.pt can't be read .*\. It is cut",
    ),
    "resume, another network": (
        [*TRAIN, "--resume", "True"],
        another_checkpoint,
        r"run/last\.pt holds another network's weights .*\. Set the network that they were trained with",
    ),
    "infer, no weights": (INFER, nothing, r"There are no weights at run/model\.pt\. Train first, or give"),
    "evaluate, no weights": (EVALUATE, nothing, r"There are no weights at run/model\.pt\. Train first, or give"),
    "infer, cut short": (INFER, cut_weights, r"run/model\.pt can't be read .*\. It is cut short or no file of weights"),
    "infer, another network": (
        INFER,
        weights({"weight": torch.zeros(3)}),
        r"run/model\.pt holds another network's weights .*\. Set the network",
    ),
    "infer, no dictionary": (INFER, weights(None), r"run/model\.pt can't be read .*\. It is cut short or no file"),
    "infer, split": (
        [*INFER, "--split", "everyone"],
        nothing,
        r'split must be "training", "validation", "test" or "unlabelled", got \'everyone\'',
    ),
    "fold": ([*TRAIN, "--fold", "5"], nothing, r"fold must be 0 to 4, got 5"),
    "export, no weights": (
        ["export", "iseg", "--output_dir", "run"],
        nothing,
        r"There are no weights at run/model\.pt",
    ),
    "pack, no weights": (["pack", "iseg", "--output_dir", "run"], nothing, r"There are no weights at run/model\.pt"),
    "export, misspelt": (
        ["export", "iseg", "--roi_sise", "[8]"],
        nothing,
        r"no option 'roi_sise'; did you mean 'roi_size'",
    ),
    "roi that doesn't fit": (
        [*TRAIN, "--roi_size", "[30,30,30]"],
        nothing,
        r"UNet cannot take windows of roi_size \[30, 30, 30\] \(.*\)\. Use sizes that .* multiples of 8",
    ),
    "evaluate without labels": (
        [*EVALUATE, "--split", "unlabelled"],
        nothing,
        r"The split unlabelled has no reference labels to score against",
    ),
    "infer, one channel of two": (
        [*INFER, "--data", "[{'image': ['iseg/subject-1-T1.hdr']}]"],
        nothing,
        r"channels in iseg/subject-1-T1\.hdr is 1, but this network takes 2\. Give T1w, T2w in this order\.",
    ),
    "infer, a file as data": (
        [*INFER, "--data", "t1.nii.gz"],
        nothing,
        r"data must be a list such as \[\{'image': \['t1\.nii\.gz', 't2\.nii\.gz'\]\}\], got 't1\.nii\.gz'",
    ),
    "results of one name": (
        [*INFER, "--data", "[{'image': ['a/t1.nii', 'a/t2.nii']}, {'image': ['b/t1.nii', 'b/t2.nii']}]"],
        nothing,
        r"a/t1\.nii and b/t1\.nii would give results with the same name\. Rename one",
    ),
    "sample, unknown option": (
        ["sample", "iseg", "new", "--spacings", "4"],
        nothing,
        r"The sample iseg has no option 'spacings'\. Use one of: spacing, contrast, seed",
    ),
    "sample over something": (
        ["sample", "iseg", "mine"],
        lambda folder: (folder / "mine/x").mkdir(parents=True),
        r"mine is not empty and holds no sample of this kind",
    ),
    "sample over a file": (
        ["sample", "iseg", "thesis.txt"],
        a_file("thesis.txt"),
        r"The folder thesis\.txt cannot be made, because thesis\.txt is a file\. Name another folder",
    ),
    "sample below a file": (
        ["sample", "iseg", "thesis.txt/iseg"],
        a_file("thesis.txt"),
        r"The folder thesis\.txt/iseg cannot be made, because .*thesis\.txt is a file\. Name another folder",
    ),
    "sample, contrast": (["sample", "iseg", "new", "--contrast", "teen"], nothing, r"contrast must be .* got 'teen'"),
    "verify": (
        ["verify", "iseg", "iseg"],
        in_iseg(BAD_DATA["truncated img"][0]),
        r"iseg has 1 problem, listed above",
    ),
}


def files(folder: Path) -> dict[str, bytes]:
    """All but the locks of run folders, which stay for the next process."""
    paths = (path for path in sorted(folder.rglob("*")) if path.name != ".lock")
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.mark.parametrize(("words", "spoil", "sentence"), CASES.values(), ids=CASES)
def test_one_sentence(
    words: list[str],
    spoil: Callable[[Path], object],
    sentence: str,
    iseg_copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path)
    monkeypatch.setattr(sys, "argv", ["brainmri", *words])
    before = files(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = str(stopped.value.code)  # a text as the code: Python prints it and exits with 1
    assert said.startswith("brainmri: ")
    assert re.search(sentence, said), said
    assert "\n" not in said
    assert files(tmp_path) == before


def test_a_missing_scan(trained: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ["--data", "[{'image': ['a.nii.gz', 'b.nii.gz']}]", "--ckpt_path", trained / "model.pt"]
    result = brainmri("infer", "iseg", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("brainmri: a.nii.gz does not exist. Correct its path, ")
    assert list(tmp_path.iterdir()) == []


def test_as_a_process(brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri("train", "iseg", "--dataset_dir", "nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("brainmri: There is no folder nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_checkpoint(trained: Path, iseg_dir: Path, tmp_path: Path) -> None:
    """Writing stops at 1 MB, by the system: the checkpoint of the epoch before stays, and a resumed run ends."""
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
    call = f"{limit} sys.argv = ['brainmri', *sys.argv[1:]]; from custom.cli import main; main()"
    words = ["--dataset_dir", iseg_dir, "--output_dir", "run", "--max_epochs", 2, "--val_interval", 1, *SMALL_RUN]
    train = ["train", "iseg", *map(str, words), "--resume", "True"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").write_bytes((trained / "last.pt").read_bytes())
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    checkpoint["trainer"] = {"epoch": 1, "iteration": 7}
    torch.save(checkpoint, tmp_path / "run/last.pt")
    before = (tmp_path / "run/last.pt").read_bytes()
    full = subprocess.run(
        [sys.executable, "-c", call, *train], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert full.returncode == 1
    assert re.search(
        r"brainmri: run cannot be written to .*\. Free some space or use another output_dir, then", full.stderr
    )
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    subprocess.run([sys.executable, "-m", "custom.cli", *train], cwd=tmp_path, check=True, capture_output=True)
    assert load_checkpoint(tmp_path / "run/last.pt")["trainer"]["epoch"] == 2
