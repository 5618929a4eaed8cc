"""Who may ask, and for what: each attack ends as a 4xx with a sentence, and touches nothing outside."""

from __future__ import annotations

import gzip
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient

from tests.label.conftest import INFANT, TISSUE, Server, free_port

SECRET = "the secret of another folder"
TOKEN = "a-token-of-24-letters-xx"


@pytest.fixture(scope="module")
def place(
    pairs: dict[str, nibabel.Nifti1Image], runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    """A server, and the folder that holds the studies and what isn't the studies'."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "studies").mkdir()
    for name in ("sub-01_T1w", "sub-01_T2w"):
        nibabel.save(pairs[name], folder / "studies" / f"{name}.nii.gz")
    nibabel.save(pairs["sub-02_T1w"], folder / "outside.nii.gz")
    (folder / "secret.txt").write_text(SECRET)
    words = ("--studies", folder / "studies", "--runs", runs, "--bundles", "iseg,brain_mri_tissue")
    server = Server(folder, *words, "--largest_upload_mb", "2", "--origins", "http://viewer.example:3000")
    yield server, folder
    server.stop()


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file outside the studies' own labels, with size and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("server.log", "datastore_v2.json", ".lock", ".changing"):
            stat = path.stat()
            found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


def packed(shape: tuple[int, ...], share: float = 1.0) -> bytes:
    """A volume of zeros as .nii.gz, or the first part of its bytes."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = gzip.compress(header.binaryblock + bytes(4 + math.prod(shape)), 6)
    return content[: int(len(content) * share)]


CUT = packed((50, 59, 48), 0.5)
BOMB = packed((400, 400, 1000))
ATTACKS: dict[str, tuple[Any, ...]] = {
    # what: method, path, arguments of requests
    "image: a relative path": ("POST", f"/infer/{TISSUE}?image=../outside"),
    "image: an absolute path": ("POST", f"/infer/{TISSUE}?image=FOLDER/outside.nii.gz"),
    "image: an absolute path in the parameters": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"image": "FOLDER/outside.nii.gz"}'}},
    ),
    "image: files in the parameters": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"files": ["FOLDER/outside.nii.gz"], "reference": "FOLDER/outside.nii.gz"}'}},
    ),
    "image: a session's file in the parameters": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"session_image": "FOLDER/outside.nii.gz"}'}},
    ),
    "image: none": ("POST", f"/infer/{TISSUE}"),
    "image: unknown": ("POST", f"/infer/{TISSUE}?image=sub-99_T1w"),
    "image: a null byte": ("POST", f"/infer/{TISSUE}?image=sub-01_T1w%00"),
    "image: very long": ("POST", f"/infer/{TISSUE}?image={'a' * 5000}"),
    "image: a URL": ("POST", f"/infer/{TISSUE}?image=http://127.0.0.1/x.nii.gz"),
    "image: download outside": ("GET", "/datastore/image?image=../secret.txt"),
    "image: download an absolute path": ("GET", "/datastore/image?image=FOLDER/secret.txt"),
    "image: info of one outside": ("GET", "/datastore/image/info?image=../secret"),
    "model: unknown": ("POST", "/infer/liver?image=sub-01_T1w"),
    "model: a path": ("POST", "/infer/..%2f..%2fsecret?image=sub-01_T1w"),
    "model: file of weights in the parameters": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"model_filename": "../../secret.txt"}'}},
    ),
    "model: weights by a path": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"weights": "../../secret.txt"}'}},
    ),
    "model: download a path": ("GET", "/model/..%2f..%2fsecret.txt"),
    "model: replace one": ("PUT", f"/model/{TISSUE}", {"files": {"file": ("model.pt", b"x")}}),
    "model: delete one": ("DELETE", f"/model/{TISSUE}"),
    "parameter: a device that isn't there": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"device": "cuda:99"}'}},
    ),
    "parameter: an ending with a path": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": {"params": '{"result_extension": "/../../../x.nii.gz"}'}},
    ),
    "parameter: no JSON": ("POST", f"/infer/{TISSUE}?image=sub-01_T1w", {"data": {"params": "{"}}),
    "parameter: a list": ("POST", f"/infer/{TISSUE}?image=sub-01_T1w", {"data": {"params": "[1]"}}),
    "parameter: no number": ("POST", f"/train/{TISSUE}", {"data": '{"max_epochs": NaN}'}),
    "parameter: endless epochs": ("POST", f"/train/{TISSUE}", {"json": {"max_epochs": 10**9}}),
    "parameter: a text for a number": ("POST", f"/train/{TISSUE}", {"json": {"max_epochs": "$import os"}}),
    "parameter: code in a size": ("POST", f"/train/{TISSUE}", {"json": {"roi_size": ["$__import__('os')", 8, 8]}}),
    "parameter: a config's key": ("POST", f"/train/{TISSUE}", {"json": {"output_dir": "FOLDER/studies"}}),
    "parameter: nested deeply": ("POST", f"/train/{TISSUE}", {"data": "[" * 100_000}),
    "parameter: an output that there isn't": ("POST", f"/infer/{TISSUE}?image=sub-01_T1w&output=exe"),
    "parameter: DICOM SEG of files": ("POST", f"/infer/{TISSUE}?image=sub-01_T1w&output=dicom_seg"),
    "train: unknown": ("POST", "/train/liver", {"json": {}}),
    "train: all, one unknown": ("POST", "/train/", {"json": {"liver": {}}}),
    "train: all, no object": ("POST", "/train/", {"json": {TISSUE: 3}}),
    "strategy: unknown": ("POST", "/activelearning/liver", {"json": {}}),
    "strategy: no JSON": ("POST", "/activelearning/random", {"data": "{"}),
    "scoring: unknown": ("POST", "/scoring/liver"),
    "batch: unknown": ("POST", "/batch/infer/liver", {"json": {}}),
    "batch: images that there aren't": ("POST", f"/batch/infer/{TISSUE}?images=../", {"json": {}}),
    "label: a tag with a path": (
        "PUT",
        "/datastore/label?image=sub-01_T1w&tag=../../../x",
        {"files": {"label": ("label.nii.gz", b"x")}},
    ),
    "label: an unknown tag": (
        "PUT",
        "/datastore/label?image=sub-01_T1w&tag=mine",
        {"files": {"label": ("l.nii.gz", b"x")}},
    ),
    "label: an image with a path": ("PUT", "/datastore/label?image=../x", {"files": {"label": ("label.nii.gz", b"x")}}),
    "label: a file name with a path": (
        "PUT",
        "/datastore/label?image=sub-01_T1w",
        {"files": {"label": ("../../x.exe", b"x")}},
    ),
    "label: no label map": ("PUT", "/datastore/label?image=sub-01_T1w", {"files": {"label": ("label.nii.gz", b"x")}}),
    "label: voxels in another file": (
        "PUT",
        "/datastore/label?image=sub-01_T1w",
        {
            "files": {
                "label": ("label.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\ndata file: /etc/hosts\n\n")
            }
        },
    ),
    "label: cut short": ("PUT", "/datastore/label?image=sub-01_T1w", {"files": {"label": ("label.nii.gz", CUT)}}),
    "label: none sent": ("PUT", "/datastore/label?image=sub-01_T1w"),
    "label: a model that there isn't": (
        "PUT",
        "/datastore/label?image=sub-01_T1w",
        {"files": {"label": ("label.nii.gz", b"x")}, "data": {"params": '{"model": "../x"}'}},
    ),
    "label: label_info of another form": (
        "PUT",
        "/datastore/label?image=sub-01_T1w",
        {"files": {"label": ("label.nii.gz", b"x")}, "data": {"params": '{"label_info": "x"}'}},
    ),
    "label: download with a path": ("GET", "/datastore/label?label=sub-01_T1w&tag=../../"),
    "label: one that there isn't": ("GET", "/datastore/label?label=sub-01_T1w&tag=original"),
    "label: info with a path": ("PUT", "/datastore/label/info?label=../x&tag=final", {"data": {"info": "{}"}}),
    "label: delete one": ("DELETE", "/datastore/label?id=sub-01_T1w&tag=final"),
    "upload: a name with a path": ("PUT", "/datastore/?image=../x", {"files": {"file": ("x.nii.gz", b"x")}}),
    "upload: an absolute name": ("PUT", "/datastore/image?image=FOLDER/x", {"files": {"file": ("x.nii.gz", b"x")}}),
    "upload: a file name with a path": ("PUT", "/datastore/image", {"files": {"file": ("../../x.nii.gz", b"x")}}),
    "upload: an ending that isn't taken": ("PUT", "/datastore/image?image=x", {"files": {"file": ("x.py", b"x")}}),
    "upload: over an image": ("PUT", "/datastore/image?image=sub-01_T1w", {"files": {"file": ("x.nii.gz", b"x")}}),
    "upload: over the server's own file": (
        "PUT",
        "/datastore/image?image=..datastore_v2.json",
        {"files": {"file": ("x.nii.gz", b"x")}},
    ),
    "upload: a name of 300 letters": (
        "PUT",
        "/datastore/image",
        {"files": {"file": ("a" * 300 + ".nii.gz", b"x")}},
    ),
    "upload: no volume": ("PUT", "/datastore/image?image=x", {"files": {"file": ("x.nii.gz", gzip.compress(b"x"))}}),
    "upload: cut short": ("PUT", "/datastore/image?image=x", {"files": {"file": ("x.nii.gz", CUT)}}),
    "upload: 155 kB that stand for 160 million voxels": (
        "PUT",
        "/datastore/image?image=x",
        {"files": {"file": ("x.nii.gz", BOMB)}},
    ),
    "upload: too large": ("PUT", "/datastore/image?image=x", {"files": {"file": ("x.nii.gz", b"x" * 3 * 2**20)}}),
    "upload: delete an image": ("DELETE", "/datastore/image?id=sub-01_T1w"),
    "info: the server's own words": (
        "PUT",
        "/datastore/image/info?image=sub-01_T1w",
        {"data": {"info": '{"strategy": "x"}'}},
    ),
    "info: half a letter": (
        "PUT",
        "/datastore/image/info?image=sub-01_T1w",
        {"data": {"info": '{"a": "\\ud800"}'}},
    ),
    "info: nested deeply": (
        "PUT",
        "/datastore/image/info?image=sub-01_T1w",
        {"data": {"info": '{"a": ' + "[" * 30 + "]" * 30 + "}"}},
    ),
    "info: endless": ("PUT", "/datastore/image/info?image=sub-01_T1w", {"data": {"info": '{"a": 1e999}'}}),
    "info: no object": ("PUT", "/datastore/image/info?image=sub-01_T1w", {"data": {"info": "3"}}),
    "session: a name of 300 letters": ("PUT", "/session/", {"files": {"files": ("a" * 300 + ".exe", b"x")}}),
    "session: garbage": ("PUT", "/session/", {"files": {"files": ("x.nii.gz", b"garbage")}}),
    "session: cut short": ("PUT", "/session/", {"files": {"files": ("x.nii.gz", CUT)}}),
    "session: too many voxels": ("PUT", "/session/", {"files": {"files": ("x.nii.gz", BOMB)}}),
    "session: DICOM SEG": (
        "POST",
        f"/infer/{TISSUE}?session_id=00000000-0000-0000-0000-000000000000&output=dicom_seg&image=../x",
    ),
    "session: a path": ("GET", "/session/..%2f..%2fx"),
    "session: unknown": ("POST", f"/infer/{TISSUE}?session_id=00000000-0000-0000-0000-000000000000"),
    "session: dots": ("DELETE", "/session/.."),
    "session: an archive": ("PUT", "/session/?uncompress=true", {"files": {"files": ("x.zip", b"x")}}),
    "session: two files": ("PUT", "/session/", {"files": [("files", ("a.nii", b"x")), ("files", ("b.nii", b"x"))]}),
    "pages: a path": ("GET", "/static/..%2f..%2fsecret.txt"),
    "pages: pathology": ("POST", "/infer/wsi/x?image=FOLDER/outside.nii.gz", {"json": {}}),
    "pages: scripts of another host": ("GET", "/docs"),
    "pages: reload": ("POST", "/reload"),
    "pages: a PACS that there isn't": ("GET", "/proxy/dicom/studies"),
    "body: too large": ("POST", f"/train/{TISSUE}", {"data": b" " * 3 * 2**20}),
    "body: JSON of 1.1 MB": ("POST", f"/train/{TISSUE}", {"data": b'{"a": "' + b" " * 1_100_000 + b'"}'}),
    "body: a login of 100 kB": ("POST", "/auth/token", {"data": b"password=" + b"x" * 100_000}),
    "body: too large, length not said": ("POST", f"/train/{TISSUE}", {"data": (b" " * 2**20 for _ in range(4))}),
    "body: parts without end": (
        "POST",
        f"/infer/{TISSUE}?image=sub-01_T1w",
        {"data": b"--x\r\nContent-Disposition: form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ),
    "origin: another page": ("GET", "/info/", {"headers": {"Origin": "http://evil.example"}}),
    "origin: none to be named": ("POST", "/scoring/dice", {"headers": {"Origin": "null"}}),
    "host: half an address": ("GET", "/info/", {"headers": {"Host": "["}}),
    "origin: half an address": ("GET", "/info/", {"headers": {"Origin": "http://["}}),
    "host: another name for this address": ("GET", "/info/", {"headers": {"Host": "evil.example"}}),
}


def filled(value: Any, folder: Path) -> Any:
    """The folder's path put in for FOLDER."""
    if isinstance(value, str):
        return value.replace("FOLDER", str(folder))
    if isinstance(value, dict):
        return {key: filled(one, folder) for key, one in value.items()}
    return value


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack: str, place: tuple[Server, Path]) -> None:
    server, folder = place
    method, path, *rest = ATTACKS[attack]
    before, above = contents(folder), sorted(folder.parent.iterdir())
    answer = server.ask(method, filled(path, folder), **filled(dict(*rest), folder))
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    if answer.headers.get("content-type") == "application/json":  # uvicorn itself refuses what is no HTTP
        assert len(answer.json()["detail"]) > 8
    assert SECRET not in answer.text
    assert tempfile.gettempdir() not in answer.text.replace(str(folder), "")  # an attacker's own words may come back
    assert contents(folder) == before
    assert sorted(folder.parent.iterdir()) == above


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /train/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999\r\n\r\n{",
        b"POST /train/x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_http(sent: bytes, place: tuple[Server, Path]) -> None:
    server, _ = place
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        answer = connection.recv(1000)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_a_page_of_ohif_is_no_way_out(place: tuple[Server, Path]) -> None:
    server, _ = place
    for path in ("..%2f..%2f..%2fconfig.py", "%2fetc%2fpasswd", "../../../config.py", "....//config.py"):
        answer = server.ask("GET", f"/ohif/{path}")
        assert answer.status_code in (200, 404)
        assert "MONAI_LABEL" not in answer.text
        assert "root:" not in answer.text


def test_it_answers_after_all_of_that_and_200_at_once(place: tuple[Server, Path], tmp_path: Path) -> None:
    server, folder = place
    asked = [("GET", "/info/"), ("POST", "/activelearning/random"), ("GET", "/datastore/?output=all")] * 60
    asked += [("POST", f"/infer/{INFANT}?image=sub-01_T1w&output=json")] * 20

    def ask(one: tuple[str, str]) -> int:
        return server.ask(*one).status_code

    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(ask, asked))
    assert len(found) == 200
    # segmentations wait for each other: what is too many is told to come again
    assert set(found) <= {200, 429}
    assert found[:180:3] == [200] * 60
    assert 200 in found[180:]
    assert server.infer(INFANT, "sub-01_T1w", tmp_path / "after.nii.gz").shape == (50, 59, 48)
    assert server.process.poll() is None
    assert "Traceback" not in server.log.read_text()
    assert json.loads((folder / "studies" / "datastore_v2.json").read_text())["objects"].keys() == {"sub-01_T1w"}


def test_named_origins_only(place: tuple[Server, Path]) -> None:
    server, _ = place
    named = server.ask("GET", "/info/", headers={"Origin": "http://viewer.example:3000"})
    assert (named.status_code, named.headers["access-control-allow-origin"]) == (200, "http://viewer.example:3000")
    own = server.ask("GET", "/info/", headers={"Origin": server.url})
    assert own.status_code == 200
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    refused = server.ask("OPTIONS", "/datastore/label", headers=preflight)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_a_token_is_asked_for(pairs: dict[str, nibabel.Nifti1Image], runs: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "studies" / "sub-01_T1w.nii.gz")
    words = ("--studies", tmp_path / "studies", "--runs", runs, "--bundles", "brain_mri_tissue", "--host", "0.0.0.0")
    server = Server(tmp_path, *words, BRAINMRI_LABEL_TOKEN=TOKEN)
    try:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Cookie": "brainmri_label=x"},
        ):
            for method, path in (("GET", "/info/"), ("GET", "/"), ("GET", "/ohif/"), ("POST", f"/train/{TISSUE}")):
                answer = server.ask(method, path, headers=headers)
                assert answer.status_code == 401
                assert "needs its token" in answer.json()["detail"]
        assert server.ask("GET", "/info/?token=wrong").status_code == 401
        assert server.ask("GET", "/info/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200

        browser = requests.Session()
        page = browser.get(f"{server.url}/?token={TOKEN}", timeout=60)
        assert (page.status_code, page.url) == (200, f"{server.url}/")
        assert browser.get(f"{server.url}/info/", timeout=60).status_code == 200
        cookie = browser.get(f"{server.url}//evil.example/?token={TOKEN}", timeout=60, allow_redirects=False)
        assert cookie.headers["location"] == "/evil.example/"  # and not another server
        assert "HttpOnly" in cookie.headers["set-cookie"]

        # 3D Slicer's way: it asks whether it must log in, and does
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
        assert client.auth_enabled()
        assert server.ask("POST", "/auth/token", data={"username": "me", "password": "wrong"}).status_code == 401
        client.update_auth(client.auth_token("me", TOKEN))
        assert client.auth_valid_token()
        assert TISSUE in client.info()["models"]
    finally:
        server.stop()


def test_behind_a_proxy(pairs: dict[str, nibabel.Nifti1Image], runs: Path, tmp_path: Path) -> None:
    """As a proxy with TLS sends it on: its own Host, and pages of its own origin."""
    (tmp_path / "studies").mkdir()
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "studies" / "sub-01_T1w.nii.gz")
    words = ("--studies", tmp_path / "studies", "--runs", runs, "--bundles", "brain_mri_tissue")
    server = Server(tmp_path, *words, "--public_url", "https://label.example", BRAINMRI_LABEL_TOKEN=TOKEN)
    try:
        headers = {"Host": "label.example", "Origin": "https://label.example"}
        assert server.ask("GET", "/info/", headers=headers).status_code == 401
        headers |= {"Authorization": f"Bearer {TOKEN}"}
        assert server.ask("GET", "/info/", headers=headers).status_code == 200
        page = server.ask("GET", "/ohif/", headers=headers)
        assert page.cookies["MONAILABEL_SERVER_URL"] == "https%3A%2F%2Flabel.example%2F"
        assert server.ask("GET", "/info/", headers=headers | {"Host": "evil.example"}).status_code == 403
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--host", "0.0.0.0"), "Others can reach 0.0.0.0, so the server needs a token of at least 16 letters"),
        (("--host", "192.168.1.5", "--token", "short"), "Others can reach 192.168.1.5"),
        (("--host", "::"), "Others can reach ::"),
        (("--public_url", "https://label.example"), "Others can reach https://label.example"),
        (("--token", "tökentökentökentöken"), "The token may have letters, digits and signs of ASCII only"),
        (("--max_voxels", "0"), "BRAINMRI_MAX_VOXELS must be a whole number above 0, got '0'."),
        (("--port", "99999"), "--port must be from 1 to 65535, got 99999."),
        (
            ("--origins", "viewer.example"),
            "must be like http://viewer.example:3000, got 'viewer.example'.",
        ),
        (("--studies", "nowhere"), "The folder nowhere does not exist"),
        (("--bundles", "spleen"), "'spleen' matches no segmentation bundle. Use a unique part of one of"),
        (("--bundles", "brain_mri_tissue:vnet"), "has no network 'vnet'. Use one of"),
        (("--bundles", "iseg"), "iseg_mri_tissue_segmentation has no weights. Train it first"),
        (("--weights", "mine", "--bundles", ""), "No bundle can be served: "),
        (("--weights", "mine"), "has no weights 'mine'. Use newest or one of ['shipped']."),
    ],
)
def test_it_refuses_to_start(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    usual = ("--studies", str(tmp_path), "--bundles", "brain_mri_tissue", "--port", str(free_port()))
    command = [sys.executable, "-m", "custom.serving", *usual, *words]
    environment = {name: value for name, value in os.environ.items() if name != "BRAINMRI_LABEL_TOKEN"}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False, env=environment
    )
    assert result.returncode == 1
    assert sentence in result.stderr.splitlines()[-1]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["--studies", str(tmp_path), "--port", str(port)]
        command = [sys.executable, "-m", "custom.serving", *words]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        f"Cannot listen on 127.0.0.1:{port} (Address already in use). Use another --port."
    )
    assert not list(tmp_path.iterdir())
