"""Slow, silent and greedy clients, secrets, links and large folders, without MONAI Label's app."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
import uvicorn
from fastapi import Depends, FastAPI, Request
from starlette.datastructures import UploadFile

import custom
from custom.errors import ConfigError, DataError
from custom.serving import guard, protocol
from custom.serving.__main__ import check_address
from custom.serving.active_learning import AtRandom
from custom.serving.guard import Guard
from custom.serving.inputs import Content, json_body
from custom.serving.pages import _TYPES
from custom.serving.protocol import TimedProtocol
from custom.serving.server import _without_folders, create_app
from custom.serving.studies import Studies
from custom.serving.study_routes import create_session
from tests.label.conftest import free_port, wait_for

TOKEN = "a-token-of-24-letters-xx"


def small_app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def first() -> str:
        return "here"

    @app.post("/json")
    def of_json(content: Content) -> dict[str, Any]:
        return content

    async def wait(delay: float) -> None:
        await asyncio.sleep(delay)

    @app.post("/late", dependencies=[Depends(wait)])
    def of_late_json(content: Content) -> dict[str, Any]:
        return content

    @app.post("/form")
    async def of_form(request: Request) -> int:
        form = await request.form()
        return len(await form["file"].read())

    return app


@pytest.fixture
def port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of uvicorn with the guard and short time limits; a parameter is the guard's (token, public url).

    Waits of a second or two keep the tests fast; the limits of the server are longer.
    """
    monkeypatch.setattr(protocol, "SECONDS", 2)  # later than the other, whose answer is wanted for half a body
    monkeypatch.setattr(guard, "_PATIENCE", 1)
    token, public_url = getattr(request, "param", ("", ""))
    app = Guard(small_app(), "127.0.0.1", token, [], 4 * 2**20, public_url)
    number = free_port()
    settings: dict[str, Any] = {"log_config": None, "http": TimedProtocol, "limit_concurrency": 20, "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(app, port=number, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, 30, "the server")
    yield number
    server.should_exit = True
    thread.join(timeout=30)


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


def drip(connection: socket.socket) -> bytes:
    """Sends a byte every 0.2 s for at most 8 s; what the server answered before it closed the connection."""
    connection.settimeout(0.2)
    for _ in range(40):
        try:
            connection.sendall(b"1")
            if (answer := connection.recv(2000)) or answer == b"":
                return answer
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("The server still waits.")


HALF_BODY = b"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
SILENT = {"no byte": b"", "half a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", "half a body": HALF_BODY}


@pytest.mark.parametrize("what", SILENT)
def test_a_silent_client_is_sent_away(what: str, port: int) -> None:
    answer = b""
    with connect(port, SILENT[what]) as connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(2000):  # until the server closes the connection
            answer += part
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert (b"came too slowly" in answer) is (what == "half a body")


@pytest.mark.parametrize("what", ["half a header", "half a body"])
def test_a_client_that_drips(what: str, port: int) -> None:
    with connect(port, SILENT[what]) as connection:
        drip(connection)


def test_a_body_that_nobody_reads_drips(port: int) -> None:
    """The answer is sent at once; what follows of the body does not keep the connection."""
    with connect(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n") as connection:
        answer = b""
        while b'"here"' not in answer:
            answer += connection.recv(2000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert drip(connection) == b""


@pytest.mark.parametrize("what", SILENT)
def test_silent_clients_do_not_shut_out_others(what: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SECONDS", 60)
    monkeypatch.setattr(guard, "_PATIENCE", 60)
    silent = [connect(port, SILENT[what]) for _ in range(40)]
    time.sleep(0.5)
    answers = [requests.get(f"http://127.0.0.1:{port}/", timeout=20).status_code for _ in range(5)]
    for connection in silent:
        connection.close()
    assert answers == [200] * 5


def test_a_keepalive_connection_takes_several_requests(port: int) -> None:
    with requests.Session() as session:
        for pause in (0, 1.5):
            time.sleep(pause)
            assert session.get(f"http://127.0.0.1:{port}/", timeout=20).json() == "here"


def test_files_may_be_large_and_json_may_not(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    assert requests.post(f"{url}/form", files={"file": b"x" * 3 * 2**20}, timeout=60).json() == 3 * 2**20
    assert requests.post(f"{url}/json", json={"a": "b" * 900_000}, timeout=60).status_code == 200
    answer = requests.post(f"{url}/json", json={"a": "b" * 1_100_000}, timeout=60)
    assert (answer.status_code, answer.json()["detail"]) == (413, "The request is too large. The limit here is 1 MB.")


def test_time_in_a_queue_of_the_server_is_not_the_clients(port: int) -> None:
    """The server reads the body after 2 s, more than the client has."""
    answer = requests.post(f"http://127.0.0.1:{port}/late?delay=2", json={"a": 1}, timeout=20)
    assert (answer.status_code, answer.json()) == (200, {"a": 1})


def test_json_is_parsed_in_a_thread() -> None:
    assert not asyncio.iscoroutinefunction(json_body)


@pytest.mark.parametrize(
    ("port", "is_secure"), [((TOKEN, ""), False), ((TOKEN, "https://label.example"), True)], indirect=["port"]
)
def test_the_cookie_is_secure_behind_https(port: int, is_secure: bool) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/?token={TOKEN}", allow_redirects=False, timeout=20)
    assert ("Secure" in answer.headers["set-cookie"]) is is_secure


@pytest.mark.parametrize(
    "token", ["tökentökentökentöken", "a token with some spaces", "a-token-and-a-tab\t", "秘密" * 10]
)
def test_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(ConfigError, match="The token may have letters, digits and signs of ASCII only"):
        check_address("127.0.0.1", 8000, token)


@pytest.mark.parametrize(("files", "connections"), [(200, 50), (100_000, 400)])
def test_connections_leave_files_for_the_server(files: int, connections: int) -> None:
    hard = int(subprocess.run(["bash", "-c", "ulimit -Hn"], capture_output=True, encoding="utf-8", check=True).stdout)
    command = (
        f"ulimit -n {min(files, hard)}; {sys.executable} -c 'from custom.serving.protocol import most_connections\n"
    )
    result = subprocess.run(
        ["bash", "-c", f"{command}print(most_connections())'"], capture_output=True, encoding="utf-8", check=True
    )
    assert int(result.stdout) == connections


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("/srv/my studies/a.nii.gz is cut short.", "a.nii.gz is cut short."),
        ("Read /tmp/brainmri-label-x/upload.nii.gz again.", "Read upload.nii.gz again."),
        ("('/usr/share/x/y.pt')", "('y.pt')"),
        ("See /datastore/?output=all, or http://127.0.0.1:8042/dicom-web.", None),
        ("a/b and 3 / 4 of T1/T2", None),
    ],
)
def test_errors_do_not_tell_where_files_are(sentence: str, shown: str | None) -> None:
    assert _without_folders(sentence, ["/srv/my studies"]) == (sentence if shown is None else shown)


def test_no_page_loads_scripts_from_elsewhere() -> None:
    app = create_app("127.0.0.1", "", [], 2**20)
    assert isinstance(app, Guard)
    assert isinstance(app.app, FastAPI)
    assert (app.app.docs_url, app.app.redoc_url) == (None, None)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("application/dicom+json", True),
        ('multipart/related; type="application/dicom"', True),
        ("image/jpeg", True),
        ("text/html; charset=utf-8", False),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("application/dicom+xml", False),
        ("application/json-seq", False),
        ("", False),
    ],
)
def test_which_answers_of_a_pacs_pass(kind: str, passes: bool) -> None:
    assert bool(_TYPES.match(kind)) is passes


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1f\x8bgarbage", bytes(400)])
def test_a_session_of_garbage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "x").open("rb") as file, pytest.raises(DataError):
        create_session([UploadFile(file, filename="a.nii.gz")])


def test_the_server_does_without_passlib() -> None:
    shims = Path(custom.__file__).parent / "serving" / "shims"
    words = f"import sys; sys.path.insert(0, {str(shims)!r}); import custom.serving.server"
    words += "; print('passlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", words], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout.split() == ["False"]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "outside.nii")
    return tmp_path / "outside.nii"


@pytest.mark.parametrize("together", [False, True])
def test_links_that_leave_the_studies(together: bool, volume: Path, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    (studies / "store").mkdir(parents=True)
    for name in ("sub-01_T1w.nii", "store/x.nii"):
        (studies / name).write_bytes(volume.read_bytes())
    (studies / "sub-02_T1w.nii").symlink_to(volume)
    (studies / "sub-01_T2w.nii").symlink_to(volume)
    (studies / "sub-03_T1w.nii").symlink_to("store/x.nii")  # as git-annex links
    (studies / "labels/final").mkdir(parents=True)
    (studies / "labels/final/sub-01_T1w.nii").symlink_to(volume)
    store = Studies(str(studies), together, True)
    assert store.list_images() == ["sub-01_T1w", "sub-03_T1w"]
    assert store.get_labeled_images() == []
    assert store.get_label_uri("sub-01_T1w", "final") == ""
    with pytest.raises(DataError, match="has no T2 scan"):
        store.files_of("sub-01_T1w", ("T1", "T2"))


def test_the_next_of_5000_studies(volume: Path, tmp_path: Path) -> None:
    """In less than 0.3 s of this thread's time, also after the notes on the last one."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(5000):
        os.link(volume, studies / f"sub-{number:04d}_T1w.nii")
    store, strategy = Studies(str(studies), True, True), AtRandom()
    store.list_images()
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        sample = strategy({}, store)
        assert sample is not None
        store.update_image_info(sample["id"], {"strategy": {"random": {"ts": int(time.time())}}})
        seconds.append(time.thread_time() - start)
    assert len(Studies(str(studies), True, True).get_infos(store.list_images())) == 5000
    assert sorted(seconds)[2] < 0.3, seconds
