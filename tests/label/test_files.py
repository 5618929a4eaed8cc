"""Studies on disk: MONAI Label's own client and plain REST, from the first list to weights trained on saved labels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
import SimpleITK
import torch
from monailabel.client import MONAILabelClient

import custom
from custom.errors import ConfigError, DataError
from custom.metrics import dice_by_name
from custom.running.bundles import find_bundles
from custom.serving.studies import Studies
from custom.serving.training import divide_studies
from tests.label.conftest import INFANT, SLICES, TISSUE, TUMOR, Server, wait_for

PATIENT = "BraTS20_Training_001"
# bundle: the image's id, and the files that it stands for
CASES = {
    INFANT: ("sub-01_T1w", ["sub-01_T1w", "sub-01_T2w"]),
    TISSUE: ("sub-01_T1w", ["sub-01_T1w"]),
    TUMOR: (f"{PATIENT}_t1", [f"{PATIENT}_{name}" for name in ("flair", "t1", "t1ce", "t2")]),
    SLICES: (f"{PATIENT}_t1", [f"{PATIENT}_{name}" for name in ("flair", "t1", "t1ce", "t2")]),
}
LABELS = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}


@pytest.fixture
def client(server: Server, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def voxels(image: Any) -> np.ndarray:
    return np.asarray(image.dataobj)


@pytest.mark.parametrize("bundle", CASES)
def test_a_result_is_the_bundles_own(bundle: str, server: Server, studies: Path, runs: Path, tmp_path: Path) -> None:
    image_id, names = CASES[bundle]
    served = server.infer(bundle, image_id, tmp_path / "served.nii.gz")
    paths = [str(studies / f"{name}.nii.gz") for name in names]
    settings = {
        "config_file": find_bundles()[bundle] / "configs" / "inference.json",
        "data": [{"image": paths if len(paths) > 1 else paths[0]}],
        "ckpt_path": runs / bundle / "model.pt" if bundle != TISSUE else find_bundles()[bundle] / "models" / "model.pt",
        "output_dir": tmp_path / "own",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "inferring", *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (file,) = (tmp_path / "own" / "segmentations").iterdir()
    own, shown = nibabel.load(file), nibabel.load(studies / f"{image_id}.nii.gz")
    assert voxels(own).any()
    np.testing.assert_array_equal(voxels(served), voxels(own))
    np.testing.assert_allclose(served.affine, shown.affine)
    assert served.get_data_dtype() == np.uint8
    assert served.shape == shown.shape


def test_a_second_image_loads_no_weights(server: Server, runs: Path, tmp_path: Path) -> None:
    for image_id in ("sub-01_T1w", "sub-02_T1w", "sub-01_T1w"):
        server.infer(INFANT, image_id, tmp_path / "label.nii.gz")
    assert server.log.read_text().count(f"Loading {runs / INFANT / 'model.pt'} ") == 1


def test_info_lists_segmentation_bundles_and_one_image_for_each_study(client: MONAILabelClient, server: Server) -> None:
    info = client.info()
    assert info["trainers"].keys() == {INFANT, TISSUE, TUMOR, SLICES}
    assert info["models"].keys() == {*info["trainers"], f"{TISSUE}_structures", f"{TISSUE}_areas"}
    assert info["models"][TUMOR]["labels"] == info["models"][SLICES]["labels"] == {"NCR": 1, "ED": 2, "ET": 3}
    assert info["description"] == custom.RESEARCH_USE_ONLY
    assert all(custom.RESEARCH_USE_ONLY in model["description"] for model in info["models"].values())
    listed = client.datastore()["objects"]
    assert {name for name in listed if name.startswith("sub")} == {f"sub-{number:02d}_T1w" for number in range(1, 7)}
    assert {name for name in listed if name.startswith(PATIENT)} == {f"{PATIENT}_t1"}  # no _seg, no other contrast


def test_next_sample_at_random(client: MONAILabelClient) -> None:
    known = client.datastore()["objects"]
    given = [client.next_sample("random", {}) for _ in range(5)]
    assert {one["id"] for one in given} <= set(known)
    assert all(Path(one["path"]).is_file() for one in given)


@pytest.fixture
def own(pairs: dict, runs: Path, tmp_path: Path) -> Any:
    """Starts a server on a folder of the test's own, with runs of its own."""
    servers = []

    def start(numbers: tuple[int, ...], *words: object) -> tuple[Server, Path]:
        studies = tmp_path / "studies"
        studies.mkdir(exist_ok=True)
        for name, image in pairs.items():
            if int(name[4:6]) in numbers:
                nibabel.save(image, studies / f"{name}.nii.gz")
        if not (tmp_path / "runs").is_dir():
            shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns("label"))
        servers.append(Server(tmp_path, "--studies", studies, "--runs", tmp_path / "runs", *words))
        return servers[-1], studies

    yield start
    for one in servers:
        if one.process.poll() is None:
            one.stop()


def test_a_whole_round(own: Any, truths: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Next sample, infer, save labels, score, train, infer again, and back to the weights that were there."""
    server, studies = own((1, 2, 3), "--bundles", "iseg")
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    assert client.info()["datastore"] == {"total": 3, "completed": 0, "label_tags": {}}

    # the most uncertain study comes first
    asked = client.next_sample("uncertainty", {})
    measured = {
        name: one["image"]["info"][f"uncertainty {INFANT}"]["value"]
        for name, one in client.datastore()["objects"].items()
    }
    assert len(measured) == 3
    assert asked["id"] == max(measured, key=lambda name: measured[name])

    before = server.infer(INFANT, "sub-01_T1w", tmp_path / "before.nii.gz")
    for name in ("sub-01_T1w", "sub-02_T1w", "sub-03_T1w"):
        nibabel.save(nibabel.Nifti1Image(truths[name], before.affine), tmp_path / "truth.nii.gz")
        assert client.save_label(name, str(tmp_path / "truth.nii.gz"))["label"] == name
        saved = nibabel.load(studies / "labels" / "final" / f"{name}.nii.gz")
        np.testing.assert_array_equal(voxels(saved), truths[name])
    assert client.info()["datastore"]["completed"] == 3
    assert client.next_sample("random", {}) == {}  # nothing is left to label

    scores = server.ask("POST", "/scoring/dice?run_sync=true").json()
    assert scores["sub-01_T1w"] == dice_by_name(voxels(before), truths["sub-01_T1w"], LABELS)

    trained = tmp_path / "runs" / INFANT / "model.pt"
    untouched = trained.read_bytes()
    client.train_start(INFANT, {"max_epochs": 6, "roi_size": [32, 32, 32], "learning_rate": 0.002})
    status = wait_for(lambda: (one := client.train_status())["status"] in ("DONE", "ERROR") and one, 240, server.log)
    assert status["status"] == "DONE", list(status["details"])
    (folder,) = (tmp_path / "runs" / INFANT / "corrected").iterdir()
    record = json.loads((folder / "model.json").read_text())
    assert trained.read_bytes() == untouched
    assert record["trained_on"] == ["sub-02_T1w", "sub-03_T1w"]
    assert record["validated_on"] == ["sub-01_T1w"]
    assert record["persons"] == ["sub-02", "sub-03"]
    assert record["dataset_dir"] == str(studies)
    assert record["simulated"] is True  # as the weights that it started from
    assert record["good"] is (record["dice"] >= record["dice_before"]) is True
    assert record["started_from"]["name"] == "trained"

    after = server.infer(INFANT, "sub-01_T1w", tmp_path / "after.nii.gz")
    assert (voxels(after) != voxels(before)).any()
    answer = server.ask("POST", f"/infer/{INFANT}?image=sub-01_T1w&output=json").json()
    assert (answer["weights"], answer["weights_sha256"]) == (folder.name, record["sha256"])
    assert answer["inputs"] == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz"]
    back = server.infer(INFANT, "sub-01_T1w", tmp_path / "back.nii.gz", weights="trained")
    np.testing.assert_array_equal(voxels(back), voxels(before))
    server.stop()

    again, _ = own((), "--bundles", "iseg", "--weights", "trained")
    np.testing.assert_array_equal(voxels(again.infer(INFANT, "sub-01_T1w", tmp_path / "2.nii.gz")), voxels(before))
    again.stop()

    # weights that got worse are kept, and not served
    (folder / "model.json").write_text(json.dumps(record | {"good": False}))
    worse, _ = own((), "--bundles", "iseg")
    assert worse.ask("POST", f"/infer/{INFANT}?image=sub-01_T1w&output=json").json()["weights"] == "trained"


@pytest.mark.parametrize(
    ("bundle", "params"),
    [
        (TISSUE, {"max_epochs": 1, "roi_size": [32, 32, 32]}),
        (TUMOR, {"max_epochs": 1, "roi_size": [32, 32, 32]}),
        (SLICES, {"max_epochs": 1, "roi_size": [64, 64]}),
    ],
)
def test_every_bundle_trains_on_saved_labels(
    bundle: str, params: dict, tumor_files: list[Path], runs: Path, own: Any, truths: dict, tmp_path: Path
) -> None:
    (tmp_path / "studies").mkdir()
    for path in tumor_files if bundle != TISSUE else ():
        shutil.copy(path, tmp_path / "studies")
    server, studies = own((1, 2) if bundle == TISSUE else (), "--bundles", bundle)
    images = [
        one for one in server.ask("GET", "/datastore/?output=all").json()["objects"] if one.lower()[-3:] != "t2w"
    ][:2]
    for image_id in images:
        if bundle == TISSUE:
            shown = nibabel.load(studies / f"{image_id}.nii.gz")
            labels = truths.get(image_id, truths["sub-01_T1w"])
        else:
            shown = nibabel.load(studies / f"{image_id.rpartition('_')[0]}_seg.nii.gz")
            labels = np.where(voxels(shown) == 4, 3, voxels(shown)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(labels, shown.affine), tmp_path / "label.nii.gz")
        MONAILabelClient(server.url, tmpdir=str(tmp_path)).save_label(image_id, str(tmp_path / "label.nii.gz"))
    assert server.ask("POST", f"/train/{bundle}", json=params).status_code == 200
    status = server.finished("/train/", 900)
    assert status["status"] == "DONE", status["details"]
    (folder,) = (tmp_path / "runs" / bundle / "corrected").iterdir()
    record = json.loads((folder / "model.json").read_text())
    assert 0 <= record["dice"] <= 1
    assert (len(record["trained_on"]), len(record["validated_on"])) == (1, 1)
    new = torch.load(folder / "model.pt", weights_only=True)
    start = runs / bundle / "model.pt" if bundle != TISSUE else find_bundles()[bundle] / "models" / "model.pt"
    old = torch.load(start, weights_only=True)
    assert new.keys() == old.keys()
    assert any(not torch.equal(new[name], old[name]) for name in new)


def test_training_on_one_person_is_refused_in_words(own: Any, truths: dict, tmp_path: Path) -> None:
    server, _ = own((1,), "--bundles", "iseg")
    label = server.infer(INFANT, "sub-01_T1w", tmp_path / "label.nii.gz")
    assert label.shape == truths["sub-01_T1w"].shape
    with (tmp_path / "label.nii.gz").open("rb") as file:
        server.ask("PUT", "/datastore/label?image=sub-01_T1w", files={"label": file}).raise_for_status()
    server.ask("POST", f"/train/{INFANT}", json={}).raise_for_status()
    status = server.finished("/train/", 120)
    assert status["status"] == "ERROR"
    assert "needs saved labels of at least two subjects" in " ".join(status["details"])
    assert not list((tmp_path / "runs" / INFANT).glob("corrected/*/model.json"))


def test_another_grid_is_resampled_and_reported(own: Any, pairs: dict, tmp_path: Path) -> None:
    server, studies = own((1,), "--bundles", "iseg")
    whole = server.infer(INFANT, "sub-01_T1w", tmp_path / "whole.nii.gz")
    t2 = pairs["sub-01_T2w"]
    padded = np.pad(voxels(t2), ((2, 0), (0, 3), (1, 1)))  # the same voxels at the same places, on a larger grid
    moved = t2.affine.copy()
    moved[:3, 3] -= t2.affine[:3, :3] @ (2, 0, 1)
    nibabel.save(nibabel.Nifti1Image(padded, moved), studies / "sub-01_T2w.nii.gz")
    answer = server.ask("POST", f"/infer/{INFANT}?image=sub-01_T1w&output=json").json()
    assert answer["resampled"] == ["sub-01_T2w.nii.gz was resampled to the grid of sub-01_T1w.nii.gz."]
    resampled = server.infer(INFANT, "sub-01_T1w", tmp_path / "resampled.nii.gz")
    np.testing.assert_array_equal(voxels(resampled), voxels(whole))


def test_a_label_map_is_taken_as_viewers_send_it(own: Any, pairs: dict, tmp_path: Path) -> None:
    server, studies = own((1,), "--bundles", "iseg")
    affine, shape = pairs["sub-01_T1w"].affine, pairs["sub-01_T1w"].shape
    place = "/datastore/label?image=sub-01_T1w"

    # 3D Slicer counts the segments that there are: here WM and CSF
    counted = np.zeros(shape, np.uint8)
    counted[10:20, 10:20, 10:20], counted[20:30, 10:20, 10:20] = 1, 2
    nibabel.save(nibabel.Nifti1Image(counted, affine), tmp_path / "slicer.nii.gz")
    params = {"params": json.dumps({"label_info": [{"name": "WM", "idx": 1}, {"name": "CSF", "idx": 2}]})}
    with (tmp_path / "slicer.nii.gz").open("rb") as file:
        assert server.ask("PUT", place, data=params, files={"label": file}).status_code == 200
    saved = studies / "labels" / "final" / "sub-01_T1w.nii.gz"
    np.testing.assert_array_equal(voxels(nibabel.load(saved)), np.select([counted == 1, counted == 2], [3, 1]))

    # OHIF sends bytes, x first; what was there is kept
    raw = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    files = {"label": ("label.bin", raw.tobytes(order="F"))}
    assert server.ask("PUT", place, files=files).status_code == 200
    np.testing.assert_array_equal(voxels(nibabel.load(saved)), raw)
    (earlier,) = saved.parent.glob("earlier/*/sub-01_T1w.nii.gz")
    assert voxels(nibabel.load(earlier)).sum() == 4000

    bad = {"another grid": (nibabel.Nifti1Image(raw[1:], affine), {}, "differs from the image")}
    bad["a shifted grid"] = (nibabel.Nifti1Image(raw, affine + _shift(5)), {}, "differs from the image")
    bad["slightly larger voxels"] = (
        nibabel.Nifti1Image(raw, affine @ np.diag([1.003] * 3 + [1])),
        {},
        "differs from the image",
    )
    bad["an unknown value"] = (nibabel.Nifti1Image(raw + 3, affine), {}, r"has the values \[4, 5, 6\]")
    unknown = {"params": json.dumps({"label_info": [{"name": name} for name in ("Liver", "GM", "WM")]})}
    bad["an unknown name"] = (nibabel.Nifti1Image(raw, affine), unknown, "No served bundle has the labels")
    for what, (image, words, sentence) in bad.items():
        nibabel.save(image, tmp_path / "bad.nii.gz")
        with (tmp_path / "bad.nii.gz").open("rb") as file:
            answer = server.ask("PUT", place, data=words, files={"label": file})
        assert answer.status_code == 400, what
        assert re.search(sentence, answer.json()["detail"]), (what, answer.text)
    np.testing.assert_array_equal(voxels(nibabel.load(saved)), raw)


def test_3d_slicers_submit_label(server: Server, studies: Path, pairs: dict, tmp_path: Path) -> None:
    """It makes an empty segment for each label of all models, and sends the names of all of them."""
    image = pairs["sub-03_T1w"]
    for wanted, codes in ((("GM", "CSF"), {"CSF": 1, "GM": 2}), (("ET", "NCR"), {"NCR": 1, "ET": 3})):
        names = list(server.ask("GET", "/info/").json()["labels"])
        assert {"CSF", "GM", "WM", "NCR", "ED", "ET", "Left-Thalamus"} <= set(names)
        counted = np.zeros(image.shape, np.uint8)
        for number, name in enumerate(wanted):
            counted[10 + 10 * number : 20 + 10 * number, 10:20, 10:20] = names.index(name) + 1
        nibabel.save(nibabel.Nifti1Image(counted, image.affine), tmp_path / "label.nii.gz")
        label_info = [{"name": name, "idx": number} for number, name in enumerate(names, start=1)]
        MONAILabelClient(server.url, tmpdir=str(tmp_path)).save_label(
            "sub-03_T1w", str(tmp_path / "label.nii.gz"), params={"label_info": label_info}
        )
        saved = voxels(nibabel.load(studies / "labels" / "final" / "sub-03_T1w.nii.gz"))
        for name in wanted:
            np.testing.assert_array_equal(saved == codes[name], counted == names.index(name) + 1)
    for path in (studies / "labels" / "final").glob("sub-03*"):
        path.unlink()


def test_a_training_that_3d_slicer_asks_for(server: Server) -> None:
    """Of a list it sends the first, of all else what /info/ says or the user typed over it."""
    trainers = server.ask("GET", "/info/").json()["trainers"]
    assert len(trainers) == 4
    for name, trainer in trainers.items():
        params = {key: value[0] if isinstance(value, list) else value for key, value in trainer["config"].items()}
        answer = server.ask("POST", f"/train/{name}", json=params)
        # past the checks: nobody saved labels yet
        status = server.finished("/train/", 120)
        assert answer.status_code == 200, answer.text
        assert status["status"] == "ERROR"
        assert "needs saved labels of at least two subjects" in "".join(status["details"])
    assert server.ask("POST", "/train/", json={}).status_code == 404  # OHIF's button, which names no model


def test_two_trainings_asked_for_at_once_are_one(own: Any) -> None:
    server, _ = own((1,), "--bundles", "iseg")
    for path in (f"/train/{INFANT}", f"/train/{INFANT}?enqueue=true", "/scoring/uncertainty"):
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, path=path: server.ask("POST", path, json={}), range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429], path
        server.finished(f"/{path.split('/')[1]}/")


def test_processes_keep_each_others_changes(pairs: dict, tmp_path: Path) -> None:
    """Scoring and batch inference run in processes of their own, which read the file at their start."""
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "sub-01_T1w.nii.gz")
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "label.nii.gz")
    server, scoring = (Studies(str(tmp_path), False, False) for _ in range(2))
    server.save_label("sub-01_T1w", str(tmp_path / "label.nii.gz"), "final", {"labels": {"NCR": 1, "ED": 2, "ET": 3}})
    scoring.update_image_info("sub-01_T1w", {"uncertainty": 0.5})
    assert server.get_image_info("sub-01_T1w")["uncertainty"] == 0.5
    assert [image for image, _ in server.labelled(["NCR", "ED", "ET"])] == ["sub-01_T1w"]
    assert server.labelled(["CSF", "GM", "WM"]) == []


def test_labels_that_a_user_put_there(pairs: dict, tmp_path: Path) -> None:
    """They are used where all models mean the same by their values."""
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "sub-01_T1w.nii.gz")
    (tmp_path / "labels" / "final").mkdir(parents=True)
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "labels" / "final" / "sub-01_T1w.nii.gz")
    for same_labels, listed in ((True, ["sub-01_T1w"]), (False, [])):
        store = Studies(str(tmp_path), False, same_labels)
        assert [image for image, _ in store.labelled(["CSF", "GM", "WM"])] == listed


def test_other_bundles_list_their_own_images(pairs: dict, tmp_path: Path) -> None:
    for name in ("sub-01_T1w", "sub-01_T2w", "sub-02_T2w"):
        nibabel.save(pairs[name], tmp_path / f"{name}.nii.gz")
    assert Studies(str(tmp_path), False, True).list_images() == ["sub-01_T1w", "sub-01_T2w", "sub-02_T2w"]
    pairwise = Studies(str(tmp_path), True, True)
    assert pairwise.list_images() == list(pairwise.json()["objects"]) == ["sub-01_T1w", "sub-02_T2w"]
    assert pairwise.status()["total"] == 2
    nibabel.save(pairs["sub-02_T1w"], tmp_path / "sub-02_T1w.nii.gz")
    assert pairwise.list_images() == ["sub-01_T1w", "sub-02_T1w"]
    pairwise.update_image_info("sub-02_T1w", {"seen": True})
    again = Studies(str(tmp_path), False, True)
    assert len(again.list_images()) == 4
    assert again.get_image_info("sub-02_T1w")["seen"] is True


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "datastore_v2.json").write_text("{"), "datastore_v2.json is broken"),
        (lambda folder: (folder / "labels").write_text(""), "Cannot write to"),
    ],
)
def test_a_folder_that_can_not_work(spoil: Any, sentence: str, tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        Studies(str(tmp_path), False, True)


def test_what_runs_ends_with_the_server(own: Any) -> None:
    server, _ = own((1, 2), "--bundles", "iseg")
    server.ask("POST", "/scoring/uncertainty").raise_for_status()
    children = wait_for(lambda: psutil.Process(server.process.pid).children(recursive=True), 30, server.log)
    server.stop()
    assert psutil.wait_procs(children, timeout=10)[1] == []


FIRST = sorted(map(str, range(20)), key=lambda one: zlib.crc32(one.encode()))  # persons by the checksum of their names


@pytest.mark.parametrize(
    ("persons", "learned", "validating"),
    [
        (FIRST[2:4], [], FIRST[2:3]),
        (FIRST[2:11], [], FIRST[2:3]),
        (FIRST[2:12], [], FIRST[2:4]),  # two of ten
        (FIRST[1:12], FIRST[3:12], FIRST[1:3]),  # a new one in front, after a training
        (FIRST[:3], FIRST[:1], FIRST[1:2]),  # who trained never validates
        (FIRST[:2], FIRST[:1], FIRST[1:2]),
    ],
)
def test_who_validates(persons: list[str], learned: list[str], validating: list[str]) -> None:
    training, validation = divide_studies([{"person": one} for one in reversed(persons)], learned, "iseg")
    assert sorted(one["person"] for one in validation) == sorted(validating)
    assert sorted(one["person"] for one in training) == sorted(set(persons) - set(validating))


@pytest.mark.parametrize(
    ("persons", "learned", "sentence"),
    [
        ([], [], r"iseg needs saved labels of at least two subjects, .* of 0\. Save more label maps\."),
        (["a", "a"], ["b"], r"iseg needs saved labels of at least two subjects, .* of 1\. Save more label maps\."),
        (
            ["a", "b"],
            ["a", "b", "c"],
            "The weights of iseg learned from all 2 subjects with saved labels. Save labels of a new subject",
        ),
    ],
)
def test_nobody_who_can_validate(persons: list[str], learned: list[str], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        divide_studies([{"person": one} for one in persons], learned, "iseg")


def _shift(mm: float) -> np.ndarray:
    moved = np.zeros((4, 4))
    moved[0, 3] = mm
    return moved


def test_names_are_those_of_the_labels_that_are_there(server: Server, tmp_path: Path) -> None:
    """3D Slicer names segments by their position among the labels that are present."""
    answer = server.ask("POST", f"/infer/{TUMOR}?image={PATIENT}_t1", data={"params": '{"result_extension": ".nrrd"}'})
    assert answer.status_code == 200
    names = answer.content.split(b'"label_names": ')[1].split(b"}")[0] + b"}"
    (tmp_path / "r.nrrd").write_bytes(answer.content[answer.content.index(b"NRRD") : answer.content.rindex(b"\r\n--")])
    present = np.unique(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "r.nrrd"))))
    assert sorted(json.loads(names).values()) == [code for code in present.tolist() if code]


def test_a_study_without_a_contrast(own: Any, tmp_path: Path) -> None:
    server, studies = own((1, 2), "--bundles", "iseg")
    (studies / "sub-02_T2w.nii.gz").unlink()
    answer = server.ask("POST", f"/infer/{INFANT}?image=sub-02_T1w")
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "The study sub-02 has no T2 scan, which this model needs. Name its file sub-02_T2.nii.gz."
    )


def test_an_upload_joins_the_studies_and_a_session_serves_one_scan(own: Any, pairs: dict, tmp_path: Path) -> None:
    server, studies = own((1,), "--bundles", "iseg,brain_mri_tissue")
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
    nibabel.save(pairs["sub-02_T1w"], tmp_path / "new.nii.gz")
    assert client.upload_image(str(tmp_path / "new.nii.gz"), "sub-09_T1w") == {"image": "sub-09_T1w"}
    assert (studies / "sub-09_T1w.nii.gz").read_bytes() == (tmp_path / "new.nii.gz").read_bytes()
    expected = server.infer(TISSUE, "sub-09_T1w", tmp_path / "a.nii.gz")

    session = client.create_session(str(tmp_path / "new.nii.gz"))["session_id"]
    file, params = client.infer(TISSUE, "", {}, session_id=session)
    np.testing.assert_array_equal(voxels(nibabel.load(file)), voxels(expected))
    assert params["note"] == custom.RESEARCH_USE_ONLY
    assert {"scan", "GM", "Left-Thalamus"} <= params["confidence"].keys()
    assert "its voxels are up to 4 mm long: boundaries between them are guessed" in params["warnings"]
    answer = server.ask("POST", f"/infer/{INFANT}?session_id={session}")
    assert answer.status_code == 400
    assert "needs T1, T2" in answer.json()["detail"]
    client.remove_session(session)
    assert server.ask("GET", f"/session/{session}").status_code == 404

    distance = np.sqrt(sum((axis - 36.0) ** 2 for axis in np.indices((72, 72, 72))))
    noise = np.random.default_rng(0).normal(0, 15, distance.shape)
    ball = np.abs(600 * (distance < 32) + 50 + noise).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(ball, np.diag([2.5, 2.5, 2.5, 1])), tmp_path / "ball.nii.gz")
    session = client.create_session(str(tmp_path / "ball.nii.gz"))["session_id"]
    answer = server.ask("POST", f"/infer/{TISSUE}?session_id={session}")
    assert answer.status_code == 400
    assert "no head was found. Give an MR scan that shows a brain." in answer.json()["detail"]


def test_batch_inference_keeps_results_beside_the_final_labels(own: Any, tmp_path: Path) -> None:
    server, studies = own((1, 2), "--bundles", "iseg")
    server.ask("POST", f"/batch/infer/{INFANT}?images=unlabeled", json={}).raise_for_status()
    status = server.finished("/batch/infer", 120)
    assert status["status"] == "DONE", status["details"]
    kept = sorted(path.name for path in (studies / "labels" / "original").glob("*.nii.gz"))
    assert kept == ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    one = server.infer(INFANT, "sub-02_T1w", tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(voxels(nibabel.load(studies / "labels" / "original" / kept[1])), voxels(one))
    assert server.ask("GET", "/info/").json()["datastore"] == {
        "total": 2,
        "completed": 0,
        "label_tags": {"original": 2},
    }


def test_a_label_map_of_one_of_two_models(server: Server, studies: Path, pairs: dict, tmp_path: Path) -> None:
    """2 is GM for one and edema for another: nothing is guessed."""
    image = pairs["sub-05_T1w"]
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 2, np.uint8), image.affine), tmp_path / "label.nii.gz")
    for params, status in (({}, 400), ({"model": TISSUE}, 200), ({"label_info": [{"name": "GM"}]}, 400)):
        with (tmp_path / "label.nii.gz").open("rb") as file:
            answer = server.ask(
                "PUT",
                "/datastore/label?image=sub-05_T1w&tag=original",
                data={"params": json.dumps(params)},
                files={"label": file},
            )
        assert answer.status_code == status, answer.text
        assert ("and their labels differ" in answer.text) is (params == {})
