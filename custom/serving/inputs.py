"""What every route needs: the app, JSON in the body, an uploaded file, and a place in the queue of segmentations."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, File, Request, UploadFile
from monailabel.interfaces.utils.app import app_instance

from custom.serving import checks
from custom.serving.label_app import BrainMRIApp

WAITING = 8  # segmentations that may wait for the one that runs
_places = threading.BoundedSemaphore(WAITING + 1)


def the_app() -> BrainMRIApp:
    """MONAI Label's only app of this process."""
    app: BrainMRIApp = app_instance()
    return app


async def json_body(request: Request) -> dict[str, Any]:
    """A JSON object in the body, whatever content type the request names."""
    return checks.parse_json(await request.body())


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
