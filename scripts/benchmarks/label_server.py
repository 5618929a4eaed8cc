"""Memory and latency of the label server under load, of one or more checkouts of this project side by side.

    . scripts/label_venv.sh; pip install -r tests/label/requirements.txt
    python scripts/benchmarks/label_server.py [CHECKOUT ...] [--segmentations 100] [--requests 5] [--rows TEXT]
        [--bundle BUNDLE]

Each checkout's server is started anew for each row, on synthetic scans, with one thread. "Others" are requests for
/auth/ of a client that does nothing wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import psutil
import requests

ROOT = Path(__file__).parents[2]
BUNDLE = "brain_mri_tissue_segmentation"
INFER = "/infer/{}?image={}&output=json"
START, ANSWER = 300, 400  # s at most
HALF_REQUESTS = {
    "no byte": b"",
    "half a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "half a body": b"POST /activelearning/random HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
}


class Server:
    """The label server of a checkout, in its own folder."""

    def __init__(self, checkout: Path, folder: Path, studies: str | Path, files: int = 4096) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [sys.executable, "-m", "custom.serving", "--port", self.port, "--bundles", BUNDLE, "--studies", studies]
        limited = ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(limited, cwd=folder, stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        end = time.monotonic() + START
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url("/auth/"), timeout=5).ok:
                    return
            time.sleep(0.5)
        self.stop()
        raise RuntimeError((folder / "server.log").read_text())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def memory(self) -> float:
        """MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def cpu_seconds(self) -> float:
        """Of all its threads since it started."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def seconds(self, path: str = "/auth/", method: str = "GET") -> float:
        """Until an answer that is not an error; inf without one."""
        began = time.perf_counter()
        with contextlib.suppress(requests.RequestException):
            if requests.request(method, self.url(path), timeout=ANSWER).ok:
                return time.perf_counter() - began
        return float("inf")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


@contextlib.contextmanager
def serving(checkout: Path, studies: Callable[[Path], object], files: int = 4096) -> Iterator[Server]:
    """A server on studies that a function writes to a folder, or whose address it returns."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "studies").mkdir()
        place = studies(Path(folder) / "studies")
        server = Server(checkout, Path(folder), str(place or Path(folder) / "studies"), files)
        try:
            yield server
        finally:
            server.stop()


def write_head(folder: Path) -> None:
    """The head of the MNI152 template, at 3 mm: the server refuses a scan without a head."""
    from custom.samples import mni152

    with tempfile.TemporaryDirectory() as sample:
        shutil.copy(mni152.write(Path(sample) / "mni152", spacing=3) / mni152.T1, folder / "head_T1w.nii.gz")


def write_many(folder: Path, count: int = 5000) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), folder.parent / "small.nii")
    for number in range(count):
        os.link(folder.parent / "small.nii", folder / f"sub-{number:04d}_T1w.nii")


def memory(checkout: Path, segmentations: int) -> str:
    """After a tenth of the segmentations and after all, with the growth between them."""
    with serving(checkout, write_head) as server:
        used = []
        for _ in range(segmentations):
            server.seconds(INFER.format(Path(BUNDLE).name, "head_T1w"), "POST")
            used.append(server.memory())
    early = used[max(0, segmentations // 10 - 1)]
    return f"{early:.0f}, {used[-1]:.0f} MB ({used[-1] / early - 1:+.1%})"


# For each line of its input: the seconds and CPU seconds of Predictor from path to labels, and of the network in it.
ALONE = """
import sys, time
from custom.running import Predictor
from custom.running.bundles import config_files
predictor = Predictor(config_files(sys.argv[1], "inference.json"), device="cpu")
spent = []
def timed(step):
    def run(*words):
        began = time.perf_counter(), time.process_time()
        result = step(*words)
        spent.extend((time.perf_counter() - began[0], time.process_time() - began[1]))
        return result
    return run
predictor.inferer = timed(predictor.inferer)
for line in sys.stdin:
    spent.clear()
    timed(predictor.predict)(sys.argv[2])
    print("alone", *spent, flush=True)
"""


@contextlib.contextmanager
def alone(checkout: Path, scan: Path) -> Iterator[Callable[[], list[float]]]:
    """Gives a function that segments the scan without a server: s and CPU s of the network, then of Predictor."""
    words = [sys.executable, "-W", "ignore", "-c", ALONE, BUNDLE, str(scan)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, **pipes) as process:

        def once() -> list[float]:
            print(file=process.stdin, flush=True)
            lines = (line.split() for line in process.stdout)
            return next([float(number) for number in line[1:]] for line in lines if line[:1] == ["alone"])

        yield once
        process.stdin.close()


def second_request(checkout: Path, requests_after_the_first: int) -> str:
    """A request for a head at 2 mm after the first one, and in turn with it Predictor alone, in a process of its own.

    Medians of s, and of CPU s, which other processes change less.
    """
    from custom.samples import mni152

    with tempfile.TemporaryDirectory() as folder:
        scan = mni152.write(Path(folder) / "mni152", spacing=2) / mni152.T1

        def link(studies: Path) -> None:
            os.link(scan, studies / "head_T1w.nii.gz")

        rounds = []
        with serving(checkout, link) as server, alone(checkout, scan) as once:
            for _ in range(requests_after_the_first + 1):
                began = server.cpu_seconds()
                seconds = server.seconds(INFER.format(Path(BUNDLE).name, "head_T1w"), "POST")
                rounds.append([*once(), seconds, server.cpu_seconds() - began])
    network, predictor, request = (
        (statistics.median(each[i] for each in rounds[1:]), statistics.median(each[i + 1] for each in rounds[1:]))
        for i in (0, 2, 4)
    )

    def over(other: tuple[float, float]) -> str:
        return f"{request[0] / other[0]:.2f} (CPU {request[1] / other[1]:.2f})"

    parts = {"request": request, "Predictor": predictor, "network": network}
    listed = ", ".join(f"{name} {seconds:.2f} s (CPU {cpu:.2f})" for name, (seconds, cpu) in parts.items())
    return f"{listed}: {over(predictor)} of Predictor, {over(network)} of the network"


def hanging_pacs(checkout: Path) -> str:
    """A PACS that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        with serving(checkout, lambda _: address) as server, ThreadPoolExecutor(45) as clients:
            for _ in range(45):
                clients.submit(server.seconds, "/proxy/dicom/studies")
            time.sleep(2)
            waited = server.seconds()
            server.stop()
    return f"{waited:.2f} s"


def large_json(checkout: Path) -> str:
    body = b'{"a":[' + b"[]," * 1_700_000 + b"[]]}"
    with serving(checkout, write_head) as server:
        ended, longest = threading.Event(), [0.0]

        def ask_others() -> None:
            while not ended.is_set():
                longest[0] = max(longest[0], server.seconds())
                time.sleep(0.02)

        def attack(_: int) -> None:
            with contextlib.suppress(requests.RequestException):
                requests.post(server.url("/activelearning/random"), data=body, timeout=ANSWER)

        others = threading.Thread(target=ask_others)
        others.start()
        with ThreadPoolExecutor(4) as attackers:
            list(attackers.map(attack, range(4)))
        ended.set()
        others.join()
    return f"{longest[0]:.2f} s"


def half_requests(checkout: Path) -> str:
    """230 connections to a server that may have 200 files open."""
    waits = []
    with serving(checkout, write_head, files=200) as server:
        for sent in HALF_REQUESTS.values():
            with contextlib.ExitStack() as held:
                for _ in range(230):
                    with contextlib.suppress(OSError):
                        connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
                        held.enter_context(connection)
                        connection.sendall(sent)
                waits.append(_until_answered(server))
            time.sleep(2)
    return ", ".join(f"{wait:.1f}" if wait < 100 else "more than 100" for wait in waits) + " s"


def _until_answered(server: Server, limit: float = 100) -> float:
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < limit:
        with contextlib.suppress(requests.RequestException):
            if requests.get(server.url("/auth/"), timeout=10).ok:
                return time.perf_counter() - began
        time.sleep(0.5)
    return passed


def many_studies(checkout: Path) -> str:
    with serving(checkout, write_many) as server:
        calls = {"next": ("/activelearning/random", "POST"), "info": ("/info/", "GET")}
        medians = []
        for path, method in calls.values():
            server.seconds(path, method)  # the first reads the folder
            medians.append(statistics.median(server.seconds(path, method) for _ in range(10)))
    return ", ".join(f"{median:.3f}" for median in medians) + " s"


def main() -> None:
    global BUNDLE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--segmentations", type=int, default=100)
    parser.add_argument("--requests", type=int, default=5, help="of one head, after the first")
    parser.add_argument("--rows", default="", help="measure only the rows with this text")
    parser.add_argument("--bundle", help="another bundle of one scan, by name or folder: a small network is faster")
    options = parser.parse_args()
    BUNDLE = options.bundle or BUNDLE
    memory_row = functools.partial(memory, segmentations=options.segmentations)
    request_row = functools.partial(second_request, requests_after_the_first=options.requests)
    rows: dict[str, Callable[[Path], str]] = {
        f"memory after {options.segmentations // 10} and {options.segmentations} segmentations": memory_row,
        f"a request after the first, and what it needs without a server (medians of {options.requests})": request_row,
        "others, while 45 searches wait for a PACS that says nothing": hanging_pacs,
        "others, during four JSON bodies of 5 MB, of 1.7 million lists": large_json,
        f"first answer to others beside 230 half requests: {', '.join(HALF_REQUESTS)}": half_requests,
        "5000 studies: next sample, /info/ (medians of 10)": many_studies,
    }
    print(f"| | {' | '.join(map(str, options.checkouts))} |\n|---|{'---|' * len(options.checkouts)}")
    for name, measure in ((name, measure) for name, measure in rows.items() if options.rows in name):
        print(f"| {name} | {' | '.join(measure(checkout.resolve()) for checkout in options.checkouts)} |", flush=True)


if __name__ == "__main__":
    main()
