"""Several folds in turn, what is made of them, and a post-processing chosen on the validation subjects."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from custom.commands.fill_bundle import into_bundle
from custom.commands.folds import members_of, possible_folds
from custom.errors import DataError
from custom.handlers import PostprocessingTrials
from custom.locks import release, take
from custom.networks import Ensemble, SubpixelUNet, ensemble_state
from custom.planning.decide import decide
from custom.planning.memory import Machine
from custom.planning.postprocessing import Postprocessing, choose
from custom.planning.write_bundle import write_bundle
from custom.running.in_turn import Task, run_in_turn
from tests.conftest import Brainmri
from tests.own_folders import blob, fingerprint, write_dataset_json
from tests.test_train_folder import SMALL

CHILD = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
with (folder / "runs").open("a") as file:
    file.write("x")
if sys.argv[2] == "fails":
    sys.exit("no luck")
(folder / "result").touch()
"""


def task(folder: Path, what: str = "succeeds") -> Task:
    return Task(folder.name, folder, ("result",), (sys.executable, "-c", CHILD, str(folder), what))


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    tasks = [task(tmp_path / "a"), task(tmp_path / "b", "fails"), task(tmp_path / "c")]
    for _ in range(2):
        with pytest.raises(DataError, match=r"b failed, as shown above\. Run the command again to go on"):
            run_in_turn(tasks)
    assert {path.parent.name: path.read_text() for path in tmp_path.glob("*/runs")} == {"a": "x", "b": "xx"}
    assert run_in_turn([tasks[0], tasks[2]])
    assert (tmp_path / "c/result").is_file()


def test_a_folder_of_another_process_is_left_to_it(tmp_path: Path, holder: Any, capsys: pytest.CaptureFixture) -> None:
    """`holder` has the lock of tmp_path: with wait=False the other tasks are run, and no more."""
    held = Task("held", tmp_path, ("result",), (sys.executable, "-c", CHILD, str(tmp_path), "succeeds"))
    assert not run_in_turn([held, task(tmp_path / "a")], wait=False)
    assert (tmp_path / "a/result").is_file()
    assert not (tmp_path / "result").exists()
    holder.communicate("end\n")
    assert run_in_turn([held])
    assert take(tmp_path / ".lock")  # the parent gave it back
    release(tmp_path / ".lock")
    assert "== held" in capsys.readouterr().out


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    members = [SubpixelUNet(1, 3, (4, 8), (1, 1), (1,)).eval() for _ in range(3)]
    ensemble = Ensemble(members[0], 3).eval()
    ensemble.load_state_dict(ensemble_state([member.state_dict() for member in members]))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = sum(member(image) for member in members) / 3
        torch.testing.assert_close(ensemble(image), expected)
        torch.testing.assert_close(torch.jit.script(ensemble)(image), expected)


@pytest.mark.parametrize(
    ("dice", "members"),
    [
        ({0: 0.8, 1: 0.75, 2: 0.71}, [0, 1, 2]),
        ({0: 0.8, 1: 0.69, 2: 0.75}, [0, 2]),
        ({0: 0.2, 1: 0.8}, [1]),
        ({0: float("nan"), 1: 0.8}, [1]),
        ({0: float("nan"), 1: float("nan")}, [0]),
    ],
)
def test_folds_far_below_the_best_are_left_out(dice: dict[int, float], members: list[int]) -> None:
    assert members_of(dice) == members


def one_hot(labels: np.ndarray, spacing: float = 1.0) -> MetaTensor:
    channels = np.stack([labels == code for code in range(3)]).astype(np.float32)
    return MetaTensor(torch.as_tensor(channels), affine=torch.diag(torch.tensor([spacing] * 3 + [1.0])))


def test_trials_by_hand(tmp_path: Path) -> None:
    """Label 1: a cube of 64 mm^3 and a false piece of 8. Label 2: two true pieces of 27. Nothing is larger than 100."""
    reference = np.zeros((16, 16, 16), dtype=int)
    reference[1:5, 1:5, 1:5] = 1
    reference[8:11, 8:11, 8:11] = reference[12:15, 12:15, 12:15] = 2
    predicted = reference.copy()
    predicted[12:14, 1:3, 1:3] = 1
    engine = Engine(lambda _engine, batch: [{"pred": one_hot(predicted), "label": one_hot(reference)}])
    engine.state.batch = [{"subject": "sub-1"}]
    PostprocessingTrials(tmp_path, {0: "background", 1: "a", 2: "b"}).attach(engine)
    engine.run([[{"subject": "sub-1"}]])
    table = pandas.read_csv(tmp_path / "postprocessing.csv", dtype={"step": str})
    found = {(row.label, row.step): row.dice for row in table.itertuples()}
    assert found["a", "none"] == pytest.approx(128 / (72 + 64), abs=1e-5)
    assert found["a", "largest"] == found["a", "10"] == 1.0
    assert found["b", "none"] == found["b", "10"] == 1.0
    assert found["b", "largest"] == pytest.approx(54 / (27 + 54), abs=1e-5)
    assert found["a", "100"] == found["b", "100"] == 0.0
    chosen = choose(table)
    assert (list(chosen.largest), chosen.least_mm3) == (["a"], 10.0)
    assert str(chosen) == "largest component of a (Dice +0.0588); no pieces below 10 mm^3 (Dice +0.0294)"
    steps = chosen.transforms({0: "background", 1: "a", 2: "b"})
    assert [(step["_target_"], step.get("applied_labels"), step.get("min_size")) for step in steps] == [
        ("KeepLargestConnectedComponentd", [1], None),
        ("RemoveSmallObjectsd", None, 10.0),
    ]


def test_no_step_without_a_gain() -> None:
    rows = [("a", step, 0.9) for step in ("none", "largest", "10", "100")]
    assert choose(pandas.DataFrame(rows, columns=["label", "step", "dice"]).assign(subject="s")) == Postprocessing(
        {}, 0.0, 0.0
    )


def test_steps_come_after_the_labels_of_a_fine_tuned_network(tmp_path: Path) -> None:
    """Two lesions of 216 and 27 voxels of 1.5 mm are 729 and 91 mm^3. The second choice replaces the first."""
    heads, run = fingerprint(subjects=6), tmp_path / "run"
    bundle = write_bundle(heads, decide(heads, Machine("cpu", 16 * 10**9)), tmp_path / "mine_bundle")
    run.mkdir()
    shutil.copy(bundle / "models/start.pt", run / "model.pt")
    logits = torch.zeros(2, 24, 24, 24)
    logits[1] = -9
    logits[1, 2:8, 2:8, 2:8] = logits[1, 12:15, 12:15, 12:15] = 9
    affine = torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0]))
    for largest, least, voxels in (({}, 10.0, 243), ({}, 100.0, 216), ({"lesion": 0.1}, 0.0, 216), ({}, 0.0, 243)):
        into_bundle(run, bundle, Postprocessing(largest, least, 0.1))
        config = json.loads((bundle / "configs/inference.json").read_text())
        steps = [step["_target_"] for step in config["labelling"]["transforms"]]
        assert len([step for step in steps if "Component" in step or "Small" in step]) == bool(largest or least)
        labelling = ConfigParser(config | {"bundle_root": str(bundle)}).get_parsed_content("labelling")
        scan = MetaTensor(torch.zeros(1, 24, 24, 24), affine=affine)
        labelled = labelling({"pred": MetaTensor(logits.clone(), affine=affine), "scan": scan})["pred"]
        assert int(labelled.sum()) == voxels


@pytest.mark.slow
def test_folds_of_the_any_scan_network_choose_their_steps(own_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ("--max_epochs", 1, "--val_interval", 1, "--roi_size", "[32,32,32]", "--spacing", 4.0, "--folds", "all")
    shutil.copytree(own_dir, tmp_path / "mine")
    trained = brainmri("train", "mine", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Post-processing, chosen on the validation subjects: " in trained.stdout
    tables = sorted((tmp_path / "runs/mine_bundle").glob("fold*/validation/postprocessing.csv"))
    assert len(tables) == 3
    chosen = choose(pandas.concat(pandas.read_csv(table, dtype={"step": str}) for table in tables))
    expected = chosen.transforms({0: "background", 1: "CSF", 2: "GM", 3: "WM"})
    config = json.loads((tmp_path / "mine_bundle/configs/inference.json").read_text())
    assert config["labelling"]["transforms"][4:] == expected
    scan = own_dir / "imagesTs/sub-11.nii.gz"
    inferred = brainmri("infer", "mine", "--data", str([{"image": [str(scan)]}]), cwd=tmp_path)
    assert inferred.returncode == 0, inferred.stderr
    assert "The results are in runs/mine_bundle. Research use only" in inferred.stdout
    labels = tmp_path / "runs/mine_bundle/segmentations/sub-11_seg.nii.gz"
    assert nibabel.load(labels).shape == nibabel.load(scan).shape


def test_two_folds_become_one_bundle(brainmri: Brainmri, tmp_path: Path) -> None:
    """Three subjects have two folds; one process trains the first, another the rest."""
    folder = tmp_path / "mine"
    for subject in ("sub-1", "sub-2", "sub-3"):
        blob(folder, subject, codes=(1, 2), channels=2)
    write_dataset_json(folder, ("T1w", "T2w"), ("background", "a", "b"))
    assert possible_folds(folder) == [0, 1]
    words = ("train", "mine", "--max_epochs", 1, "--val_interval", 1, *SMALL)
    first = brainmri(*words, "--folds", "0", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Folds 1 are not finished" in first.stdout
    both = brainmri(*words, "--folds", "all", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    assert "== fold 1" in both.stdout
    assert "== fold 0" not in both.stdout
    run, bundle = tmp_path / "runs/mine_bundle", tmp_path / "mine_bundle"
    scores = pandas.read_csv(run / "out_of_fold.csv")
    assert sorted(scores["subject"].unique()) == ["sub-2", "sub-3"]
    record = json.loads((bundle / "models/model.json").read_text())
    network = json.loads((bundle / "configs/inference.json").read_text())["network_def"]
    assert network == json.loads((run / "ensemble.json").read_text())["network_def"]
    if len(record["members"]) == 2:
        assert (network["_target_"], network["count"]) == ("custom.networks.Ensemble", 2)
    exported = brainmri("export", "mine", "--output_dir", "out", "--roi_size", "[32,32,32]", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    other = brainmri(*words, "--folds", "all", "--learning_rate", 0.5, cwd=tmp_path)
    assert "holds a training with another learning_rate" in other.stderr
    wrong = brainmri(*words, "--folds", "7", cwd=tmp_path)
    assert "--folds must be all or some of 0, 1, got '7'" in wrong.stderr
