"""The web server: routes, errors as sentences, and the guard around them."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import custom
from custom.errors import BrainMRIError, MissingDataError, find_cause
from custom.serving import pages, routes, study_routes
from custom.serving.dicomweb import PacsError
from custom.serving.guard import Guard
from custom.serving.progress import CancelledError

logger = logging.getLogger(__name__)
_PATH = re.compile(r"(?<![\w:/.])/([^\s/'\":,()]+)/(?:[^\s/'\":,()]+/)*")


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    instance = app_instance()
    instance.server_mode(True)
    instance.on_init_complete()
    yield
    for task in ("train", "scoring", "batch_infer"):  # processes of their own
        AsyncTask.stop(task)


def create_app(host: str, token: str, origins: Sequence[str], largest: int, public_url: str = "") -> ASGIApp:
    """The server's app. MONAI Label's settings must be in the environment before (custom.serving.__main__).

    Args:
        host: the address that the server will listen on.
        token: what every request must carry; "" if none is needed.
        origins: further origins whose web pages may use the server.
        largest: the size of the largest accepted request, in bytes.
        public_url: the address of a proxy in front, one of the origins; "" if there is none.
    """
    app = FastAPI(
        title="Brain MRI Bundles",
        description=custom.RESEARCH_USE_ONLY,
        version=custom.__version__,
        lifespan=_lifespan,
        docs_url=None,  # their pages would load scripts from another host
        redoc_url=None,
    )
    app.state.token, app.state.public_url = token, public_url
    app.include_router(pages.router)
    app.include_router(routes.router)
    app.include_router(study_routes.router)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        allow_credentials=bool(origins),
    )
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(BrainMRIError, _failed)  # otherwise the web server would log a traceback of each
    app.add_exception_handler(Exception, _failed)
    return Guard(app, host, token, origins, largest, public_url)


async def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place, reason = ".".join(str(part) for part in first.get("loc", ())[1:]), first.get("msg")
    return JSONResponse({"detail": f"The request is not valid ({place}: {reason})."}, status_code=400)


async def _disconnected(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The request ended too early. Send it again."}, status_code=400)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    if cause := find_cause(error):
        statuses: dict[type[BrainMRIError], int] = {MissingDataError: 404, PacsError: 502, CancelledError: 409}
        status = next((status for kind, status in statuses.items() if isinstance(cause, kind)), 400)
        app = app_instance()
        folders = app.studies, Path(app.app_dir).parent
        return JSONResponse({"detail": _without_folders(str(cause), folders)}, status)
    logger.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "The server failed. Its log has the reason (/logs/)."}, status_code=500)


def _without_folders(sentence: str, folders: Sequence[str | Path]) -> str:
    """A sentence with names of files instead of their paths on the server.

    Args:
        sentence: of an error.
        folders: known folders, whose names may have spaces.
    """
    for folder in folders:
        sentence = sentence.replace(f"{folder}/", "")
    return _PATH.sub(lambda match: "" if Path(f"/{match[1]}").is_dir() else match[0], sentence)
