"""Results by C-STORE: to a node that takes them, and to nodes that do not."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt

from custom.errors import ConfigError
from custom.serving import dimse
from custom.serving.dicomweb import DicomWeb, PacsError
from custom.serving.dimse import Dimse
from tests.label.conftest import free_port
from tests.label.dicom_series import plane_series

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def image() -> pydicom.Dataset:
    return plane_series(lambda places: np.arange(len(places)) % 900, [1, 0, 0], [0, 1, 0], shape=(24, 20, 2))[0]


@contextlib.contextmanager
def node(on_store: Callable[[Any], int], kind: str = MRImageStorage, title: str = "NODE") -> Iterator[str]:
    """A DICOM node on this machine; its address."""
    entity = AE(title)
    entity.add_supported_context(kind)
    entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        yield f"NODE@127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()


@contextlib.contextmanager
def peer(answer: bytes | None) -> Iterator[str]:
    """A program that is no DICOM node: it sends some bytes and closes the connection, or, for None, says nothing."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            if answer is None:
                ended.wait(20)
            else:
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"NODE@127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(20)


def aborted(event: Any) -> int:
    event.assoc.abort()
    return 0


def test_a_node_gets_the_object_as_it_is(image: pydicom.Dataset) -> None:
    got = []

    def keep(event: Any) -> int:
        got.append(event.dataset)
        return 0

    with node(keep) as address:
        Dimse(address).store(image)
    assert [each.to_json_dict() for each in got] == [image.to_json_dict()]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: node(lambda _: 0xA700), r"did not store the object \(status 0xA700\)"),
        (lambda: node(aborted), r"took no MR Image Storage|did not store the object \(status none\)"),
        (lambda: node(lambda _: 0, kind=VERIFICATION), "does not take objects of BRAINMRI"),
        (lambda: node(lambda _: 0, title="ANOTHER"), "refuses objects of BRAINMRI. Check its address, AE title"),
        (lambda: peer(b""), "does not answer"),
        (lambda: peer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not answer"),
        (lambda: peer(b"\x02\x00\xff\xff\xff\xff" + bytes(100)), "does not answer"),
        (lambda: peer(None), "does not answer"),
        (lambda: contextlib.nullcontext(f"NODE@127.0.0.1:{free_port()}"), "does not answer"),
    ],
    ids=["full", "abort", "another kind", "another title", "closes", "a web server", "nonsense", "silent", "nobody"],
)
def test_a_node_that_does_not_take_it(
    make: Any, sentence: str, image: pydicom.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and within the time that the node has for an answer."""
    monkeypatch.setattr(dimse, "_SECONDS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pynetdicom leaves some sockets for Python to close
        with make() as address, pytest.raises(PacsError, match=sentence):
            Dimse(address).store(image)
        gc.collect()


@pytest.mark.parametrize("address", ["ORTHANC", "ORTHANC@host", "@host:104", "A" * 17 + "@host:104", "A@host:99999"])
def test_an_invalid_node(address: str) -> None:
    with pytest.raises(ConfigError, match=r"--store_to must be like ORTHANC@127\.0\.0\.1:4242"):
        Dimse(address)


def test_a_password_in_the_url_of_a_pacs() -> None:
    """Messages and the log would show it."""
    with pytest.raises(ConfigError, match="Set BRAINMRI_PACS_USER and BRAINMRI_PACS_PASSWORD instead") as caught:
        DicomWeb("http://doctor:secret@127.0.0.1:8042/dicom-web")
    assert "secret" not in str(caught.value)
