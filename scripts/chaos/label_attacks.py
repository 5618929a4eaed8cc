"""Attacks on a real label server: python -m scripts.chaos.label_attacks FOLDER SECONDS SEED, in .venv-label."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import requests

from custom.samples import mni152
from scripts.chaos.rows import Row, problem_of
from tests.label.conftest import TISSUE, Server, free_port
from tests.label.test_security import ATTACKS, SECRET, contents, filled

SCAN = "sub-01_T1w"
PATHS = [
    "/datastore/image?image={}", "/datastore/label?label={}&tag=final", f"/datastore/label?label={SCAN}&tag={{}}",
    "/datastore/image/info?image={}", "/model/{}", "/model/info/{}", "/static/{}", "/ohif/{}", "/session/{}", "/{}",
    "/proxy/dicom/{}", f"/infer/{TISSUE}?image={{}}", "/infer/{}?image=" + SCAN,
]  # fmt: skip
STEPS = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "..\\", "....//", "..%00/", "/", "%2f", "//", "file:///"]
TARGETS = ["secret.txt", "outside.nii.gz", "outside", "etc/passwd", "proc/self/environ", "server.log"]


def main() -> None:
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    rows = []
    for number, attack in enumerate((hostile_requests, load, slow_clients, hanging_pacs, kill_server)):
        row = Row(attack.__name__.replace("_", " ").replace("pacs", "PACS"))
        share = seconds * (0.45, 0.1, 0.1, 0.1, 0.25)[number]
        place = folder / attack.__name__
        place.mkdir()
        try:
            attack(row, place, share, random.Random(f"{seed} {row.name}"))
        except Exception as error:
            row.other.append(f"the row ended early: {type(error).__name__}: {str(error)[-500:]}")
        rows.append(asdict(row))
        (folder / "rows.json").write_text(json.dumps(rows))


@contextlib.contextmanager
def served(folder: Path, *more: object, studies: str | None = None) -> Iterator[Server]:
    """A server of one scan, with a secret beside its folder."""
    if not (folder / "studies").is_dir():
        (folder / "studies").mkdir()
        scan = nibabel.load(mni152.write(folder / "mni152", spacing=4) / mni152.T1)
        for path in (folder / "studies" / f"{SCAN}.nii.gz", folder / "outside.nii.gz"):
            nibabel.save(scan, path)
        (folder / "secret.txt").write_text(SECRET)
    words = ("--studies", studies or folder / "studies", "--runs", f"{folder}_runs", "--bundles", TISSUE, *more)
    server = Server(folder, *words)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(120)
        except subprocess.TimeoutExpired:  # it ends a segmentation first
            server.process.kill()
            server.process.wait()


def memory(server: Server) -> int:
    """MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def percentiles(times: list[float]) -> str:
    ms = np.percentile(np.array(times) * 1000, [50, 95, 100])
    return "{:.0f} ms in the median, {:.0f} ms in 95 %, {:.0f} ms at most".format(*ms)


def hostile_requests(row: Row, folder: Path, seconds: float, rng: random.Random) -> None:
    """The requests of tests/label/test_security.py, then paths that lead out of the folder, put together at random."""
    with served(folder, "--largest_upload_mb", 2) as server:
        before, first, times = contents(folder), memory(server), []
        known, end = list(ATTACKS.values()), time.monotonic() + seconds
        while known or time.monotonic() < end:
            if known:
                method, path, *rest = known.pop()
            else:
                outside = rng.choice(STEPS) * rng.randrange(1, 8) + rng.choice(TARGETS)
                method, path, rest = rng.choice(["GET", "GET", "POST", "PUT"]), rng.choice(PATHS).format(outside), []
            row.tried += 1
            began = time.monotonic()
            try:
                answer = server.ask(method, filled(path, folder), **filled(dict(*rest), folder))
            except requests.RequestException as error:
                row.other.append(f"{method} {path[:100]}: {type(error).__name__}")
                continue
            times.append(time.monotonic() - began)
            said = answer.text if "FOLDER" in f"{path} {rest}" else answer.text.replace(str(folder), SECRET)
            if SECRET in said or "root:x" in said:
                row.lost.append(f"leak: {method} {path[:100]}: {answer.text[:200]}")
            if answer.status_code >= 500:
                row.other.append(f"{method} {path[:100]}: {answer.status_code}")
            if row.tried <= len(ATTACKS) or row.tried % 100 == 0:
                now = contents(folder)
                changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
                row.lost += [f"{name} changed after {method} {path[:100]}" for name in changed]
                before = now
        row.notes = [percentiles(times), f"memory {first} MB, then {memory(server)} MB"]


def load(row: Row, folder: Path, seconds: float, rng: random.Random) -> None:
    """Fifty clients at once, two of which want segmentations."""
    asked = [("GET", "/info/"), ("POST", "/activelearning/random"), ("GET", "/datastore/?output=all")] * 16
    asked += [("POST", f"/infer/{TISSUE}?image={SCAN}&output=json")] * 2
    times: list[float] = []
    with served(folder) as server:

        def ask(one: tuple[str, str]) -> int:
            began = time.monotonic()
            status = server.ask(*one).status_code
            if "infer" not in one[1]:
                times.append(time.monotonic() - began)
            return status

        first, end = memory(server), time.monotonic() + seconds
        with ThreadPoolExecutor(len(asked)) as pool:
            while not row.tried or time.monotonic() < end:
                rng.shuffle(asked)
                answers = list(pool.map(ask, asked))
                row.tried += len(answers)
                row.other += [f"status {status}" for status in answers if status not in (200, 429)]
        row.notes = [percentiles(times), f"memory {first} MB, then {memory(server)} MB"]


def answers_meanwhile(row: Row, server: Server, path: str) -> str:
    """Twenty requests of a plain client, each of which must be answered within 5 s."""
    times = []
    for _ in range(20):
        began = time.monotonic()
        try:
            requests.get(server.url + path, timeout=5)
        except requests.RequestException as error:
            row.other.append(f"GET {path} meanwhile: {type(error).__name__}")
        times.append(time.monotonic() - began)
    return percentiles(times)


def slow_clients(row: Row, folder: Path, seconds: float, rng: random.Random) -> None:
    """Requests that are sent by half, and never go on. The server must answer others, and hang up in the end."""
    halves = [
        b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ",
        b"POST /train/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{",
        b"PUT /datastore/image?image=x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"",
    ]
    with served(folder) as server, contextlib.ExitStack() as stack:
        connections = []
        for _ in range(300):
            with contextlib.suppress(OSError):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                one.sendall(rng.choice(halves))
                connections.append(one)
                row.tried += 1
        row.notes = [answers_meanwhile(row, server, "/info/")]
        end, closed = time.monotonic() + max(seconds, 90), 0
        while time.monotonic() < end and (closed := sum(map(is_closed, connections))) < len(connections):
            time.sleep(1)
        row.notes.append(f"{closed} of {len(connections)} were hung up")
        if closed < len(connections):
            row.other.append(f"{len(connections) - closed} half-sent requests are kept")


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(65536, socket.MSG_PEEK) == b"" or connection.recv(65536) != b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hanging_pacs(row: Row, folder: Path, seconds: float, rng: random.Random) -> None:
    """A PACS that takes connections and says nothing, while many clients ask for its studies."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=500) as pacs:
        url = f"http://127.0.0.1:{pacs.getsockname()[1]}/dicom-web"
        with served(folder, "--allow_simulated", studies=url) as server:
            paths = ["/proxy/dicom/studies", "/datastore/?output=all", "/ohif/"]
            end = time.monotonic() + seconds

            def search() -> None:
                with contextlib.suppress(requests.RequestException):
                    requests.get(server.url + rng.choice(paths), timeout=max(1, end - time.monotonic()))

            threads = [threading.Thread(target=search, daemon=True) for _ in range(45)]
            for thread in threads:
                thread.start()
                row.tried += 1
            time.sleep(2)
            row.notes = [answers_meanwhile(row, server, "/auth/")]


def kill_server(row: Row, folder: Path, seconds: float, rng: random.Random) -> None:
    """Labels are saved all the time; the server is killed, started again, and must have each one that it took."""
    end, taken = time.monotonic() + seconds, 0
    while not row.tried or time.monotonic() < end:
        with served(folder) as server:
            saved = folder / "studies" / "labels" / "final" / f"{SCAN}.nii.gz"
            if taken and label_value(saved) not in (taken, taken % 200 + 1):
                row.lost.append(f"label {taken}, which was taken, is {label_value(saved)} after kill {row.tried}")
            stop = time.monotonic() + rng.uniform(0.2, 3)
            timer = threading.Timer(stop - time.monotonic(), lambda: os.kill(server.process.pid, signal.SIGKILL))
            timer.start()
            with contextlib.suppress(requests.RequestException):
                while True:
                    files = {"label": ("label.nii.gz", label_of(folder, taken % 200 + 1))}
                    answer = server.ask("PUT", f"/datastore/label?image={SCAN}", files=files)
                    if answer.status_code != 200:
                        row.other.append(f"PUT label: {answer.status_code} {answer.text[:200]}")
                        break
                    taken = taken % 200 + 1
            timer.join()
            server.process.wait()
            row.tried += 1
            final = folder / "studies" / "labels"
            row.half_written += [f"{p}: {problem}" for p in final.rglob("[!.]*.nii.gz") if (problem := problem_of(p))]
    row.notes = [f"label map number {taken} was the last to be taken"]


def label_of(folder: Path, value: int) -> bytes:
    """A label map on the scan's grid; the number of voxels of label 1 tells which one it is."""
    scan = nibabel.load(folder / "studies" / f"{SCAN}.nii.gz")
    labels = np.zeros(scan.shape, np.uint8)
    labels.flat[:value] = 1
    stream = io.BytesIO()
    image = nibabel.Nifti1Image(labels, scan.affine)
    image.to_file_map({"image": nibabel.FileHolder(fileobj=stream), "header": nibabel.FileHolder(fileobj=stream)})
    return gzip.compress(stream.getvalue())


def label_value(path: Path) -> int:
    return int((np.asarray(nibabel.load(path).dataobj) == 1).sum())


if __name__ == "__main__":
    main()
