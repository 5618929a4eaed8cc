"""Parameters of requests: what is taken, and the sentence for what is refused. No server is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from custom.errors import ConfigError
from custom.serving import checks
from custom.serving.bundles import ServedBundle
from custom.serving.label_app import check_for_pacs

WEIGHTS = [SimpleNamespace(name="20260102-100000"), SimpleNamespace(name="shipped")]
BUNDLE = SimpleNamespace(weights="newest", find_weights=lambda: WEIGHTS)
TRAINER = SimpleNamespace(config=lambda: {"roi_size": "128 128 64"})
APP: Any = SimpleNamespace(bundles={"iseg": BUNDLE}, _trainers={"iseg": TRAINER})


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "device_list", lambda: ["cpu", "cuda"])


@pytest.mark.parametrize(
    ("params", "taken"),
    [
        ({}, {}),
        ({"client_id": "me", "logging": "INFO", "device": None}, {}),
        ({"device": ["cuda", "cpu"], "weights": "shipped"}, {"device": "cuda", "weights": "shipped"}),  # 3D Slicer
        (
            {"result_extension": ".nrrd", "result_compress": False},
            {"result_extension": ".nrrd", "result_compress": False},
        ),
        ({"result_dtype": "uint8", "restore_label_idx": True}, {"result_dtype": "uint8", "restore_label_idx": True}),
        ({"uncertainty": True}, {"uncertainty": True}),
    ],
)
def test_parameters_of_a_segmentation(params: dict[str, Any], taken: dict[str, Any]) -> None:
    assert checks.infer_params(APP, "iseg", params) == taken


@pytest.mark.parametrize(
    ("params", "taken"),
    [
        ({"roi_size": "32 32 16"}, {"roi_size": [32, 32, 16]}),
        ({"roi_size": [32, 32, "16"]}, {"roi_size": [32, 32, 16]}),
        ({"max_epochs": "20", "learning_rate": "1e-3"}, {"max_epochs": 20, "learning_rate": 0.001}),
        ({"max_epochs": 20.0, "device": "cpu"}, {"max_epochs": 20, "device": "cpu"}),
    ],
)
def test_parameters_of_a_training(params: dict[str, Any], taken: dict[str, Any]) -> None:
    assert checks.train_params(APP, "iseg", params) == taken


INFER, TRAIN = checks.infer_params, checks.train_params


@pytest.mark.parametrize(
    ("check", "params", "sentence"),
    [
        (INFER, {"device": "cuda:9"}, "'device' should be one of cpu, cuda, got 'cuda:9'."),
        (INFER, {"device": []}, "'device' should be a valid string, got '[]'."),
        (INFER, {"weights": "../x"}, "'weights' should be one of newest, 20260102-100000, shipped, got '../x'."),
        (
            INFER,
            {"result_extension": "/../x"},
            "'result_extension' should be '.nii.gz', '.nii' or '.nrrd', got '/../x'.",
        ),
        (INFER, {"result_compress": "yes"}, "'result_compress' should be a valid boolean, got 'yes'."),
        (INFER, {"files": ["/etc/passwd"]}, "There is no parameter 'files'. Use one of: device, restore_label_idx, "),
        (TRAIN, {"output_dir": "x"}, "There is no parameter 'output_dir'. Use one of: device, learning_rate, "),
        (TRAIN, {"max_epochs": 0}, "'max_epochs' should be greater than or equal to 1, got '0'."),
        (TRAIN, {"max_epochs": 10001}, "'max_epochs' should be less than or equal to 10000, got '10001'."),
        (TRAIN, {"max_epochs": True}, "'max_epochs' should be a number, got 'True'."),
        (TRAIN, {"max_epochs": 1.5}, "'max_epochs' should be a valid integer, "),
        (TRAIN, {"learning_rate": "nan"}, "'learning_rate' should be a finite number, got 'nan'."),
        (TRAIN, {"roi_size": [32, 32]}, "'roi_size' should be 3 numbers, got '[32, 32]'."),
        (TRAIN, {"roi_size": [32, 32, 4]}, "'roi_size.2' should be greater than or equal to 8, got '4'."),
        (TRAIN, {"roi_size": ["$print()", 8, 8]}, "'roi_size.0' should be a valid integer, "),
        (TRAIN, {"roi_size": 32}, "'roi_size' should be 3 numbers, got '32'."),
    ],
)
def test_refused_parameters(check: Any, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HTTPException) as raised:
        check(APP, "iseg", params)
    assert raised.value.status_code == 400
    assert raised.value.detail.startswith(sentence)
    assert "\n" not in raised.value.detail


@pytest.mark.parametrize(
    ("params", "status", "sentence"),
    [
        ({"label_info": "x"}, 400, "'label_info' should be a valid list, got 'x'."),
        ({"label_info": ["CSF"]}, 400, "'label_info.0' should be a valid dictionary, got 'CSF'."),
        ({"model": "liver"}, 404, "There is no model 'liver'. Use one of: iseg."),
        ({"model": 3}, 400, "'model' should be a valid string, got '3'."),
    ],
)
def test_parameters_of_a_label_map(params: dict[str, Any], status: int, sentence: str) -> None:
    kept = {"model": "iseg", "label_info": [{"name": "CSF", "idx": 1}]}
    assert checks.label_params(APP, kept | {"result": "something of the viewer's"}) == kept
    with pytest.raises(HTTPException) as raised:
        checks.label_params(APP, params)
    assert (raised.value.status_code, raised.value.detail) == (status, sentence)


@pytest.mark.parametrize(("text", "content"), [("", {}), (None, {}), ("null", {}), (b'{"a": [1]}', {"a": [1]})])
def test_json(text: Any, content: dict[str, Any]) -> None:
    assert checks.parse_json(text) == content


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "The parameters are not valid JSON"),
        ("[" * 100_000, "The parameters are not valid JSON"),
        (b"\xff", "The parameters are not valid JSON"),
        ('{"a": NaN}', "The parameters are not valid JSON"),
        ('{"a": 1e999}', "The parameters are not valid JSON"),
        ('{"a": "\\ud800"}', "The parameters are not valid JSON"),
        ("[1]", "The parameters must be a JSON object, not a list."),
        ('{"a": ' + "[" * 20 + "]" * 20 + "}", "The parameters are nested more than 20 levels deep."),
    ],
)
def test_refused_json(text: Any, sentence: str) -> None:
    with pytest.raises(HTTPException) as raised:
        checks.parse_json(text)
    assert raised.value.status_code == 400
    assert raised.value.detail.startswith(sentence)


@pytest.mark.parametrize("name", ["", " CSF", "x" * 65, "a\\b"])
def test_names_that_dicom_cannot_hold(name: str) -> None:
    """They would come back from the PACS as other names."""
    bundle = ServedBundle("some_bundle", "1", "", Path(), Path(), (None,), {"GM": 1, name: 2})
    with pytest.raises(ConfigError, match="On a PACS a name has 1 to 64 letters, no backslash"):
        check_for_pacs(bundle)
    check_for_pacs(replace(bundle, labels={"GM": 1, "x" * 64: 2, "脑": 3}))
