"""What routes need: the app, JSON in the body, an uploaded file, and a place among the requests that take long."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, File, Request, UploadFile
from monailabel.interfaces.utils.app import app_instance

from custom.serving import checks
from custom.serving.dicomweb import CALLS
from custom.serving.label_app import BrainMRIApp
from custom.serving.pacs import Pacs

WAITING = 8  # segmentations that may wait for the one that runs
_places = threading.BoundedSemaphore(WAITING + 1)
_pacs_places = asyncio.Semaphore(CALLS)


def the_app() -> BrainMRIApp:
    """MONAI Label's only app of this process."""
    app: BrainMRIApp = app_instance()
    return app


async def body(request: Request) -> bytes:
    """The body of a request."""
    content: bytes = await request.body()
    return content


Body = Annotated[bytes, Depends(body)]


def json_body(content: Body) -> dict[str, Any]:
    """A JSON object in the body, whatever content type the request names; parsed in a thread."""
    return checks.parse_json(content)


async def pacs_place() -> AsyncIterator[None]:
    """A place among the requests that may ask the PACS. A request that waits for its place holds no thread.

    A PACS that hangs thus holds at most CALLS of the server's 40 threads, beside those of the queue of segmentations.
    """
    if not isinstance(the_app().datastore(), Pacs):
        yield
        return
    async with _pacs_places:
        yield


ASKS_PACS = Depends(pacs_place, scope="function")  # the place is free before the answer is sent
Content = Annotated[dict[str, Any], Depends(json_body)]
Upload = Annotated[UploadFile, File()]


@contextlib.contextmanager
def temporary_upload(upload: UploadFile, ending: str) -> Iterator[Path]:
    """An uploaded file under a name that the server chose; it is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="brainmri-label-") as folder:
        path = Path(folder) / f"upload{ending}"
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        yield path


@contextlib.contextmanager
def place_in_queue() -> Iterator[None]:
    """A place in the queue of segmentations. Refuses the request (429) if the queue is full."""
    if not _places.acquire(blocking=False):
        raise checks.refuse(429, f"{WAITING} segmentations are waiting already. Try again in a minute.")
    try:
        yield
    finally:
        _places.release()
