"""The server's first page, OHIF's files, and the PACS behind OHIF."""

from __future__ import annotations

import html
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

import custom
from custom.serving import checks
from custom.serving.pacs import Pacs
from custom.serving.routes import the_app

router = APIRouter()
OHIF = Path(str(files("monailabel"))) / "endpoints" / "static" / "ohif"
_UID = r"[0-9.]{1,64}"
# DICOMweb's resources and nothing beside them: a PACS often has an interface of its own under the same address
_RESOURCE = re.compile(
    rf"(studies|series|instances)|studies/{_UID}(/(metadata|rendered|thumbnail|series|instances))?"
    rf"|studies/{_UID}/series/{_UID}(/(metadata|rendered|thumbnail|instances))?"
    rf"|studies/{_UID}/series/{_UID}/instances/{_UID}"
    rf"(/(metadata|rendered|thumbnail|bulkdata(/[0-9A-Fa-f/]+)?|frames/[0-9,]+(/(rendered|thumbnail))?))?"
)
_SENT = ("accept", "content-type")


@router.get("/", include_in_schema=False)
def first_page() -> HTMLResponse:
    app = the_app()
    models = "".join(f"<li><b>{name}</b>: {html.escape(one.description)}</li>" for name, one in app.bundles.items())
    viewer = '<p><a href="/ohif/">OHIF viewer</a></p>' if isinstance(app.datastore(), Pacs) else ""
    return HTMLResponse(
        f"<!doctype html><title>{app.name}</title><h1>{app.name}</h1><p>{custom.RESEARCH_USE_ONLY}</p>"
        f"<ul>{models}</ul>{viewer}<p>3D Slicer: give its MONAI Label module this page's address.</p>"
    )


@router.get("/ohif/{path:path}", include_in_schema=False)
def ohif(path: str, request: Request) -> Response:
    """A file of OHIF's, or its page, which makes its own addresses."""
    try:
        known = (OHIF / path).resolve()
        found = bool(path) and known.is_relative_to(OHIF.resolve()) and known.is_file()
    except (OSError, ValueError):  # no name of a file
        found = False
    if found:
        return FileResponse(known)
    page = FileResponse(OHIF / "index.html", headers={"cache-control": "no-store"})
    address = f"{request.app.state.public_url}/" if request.app.state.public_url else str(request.base_url)
    # OHIF's panel looks for the server on port 8000 where it finds no other address here
    page.set_cookie("MONAILABEL_SERVER_URL", quote(address, safe=""), path="/")
    return page


async def body(request: Request) -> bytes:
    return await request.body()


@router.api_route("/proxy/dicom/{path:path}", methods=["GET", "POST"], include_in_schema=False)
def proxy(path: str, request: Request, content: Annotated[bytes, Depends(body)]) -> Response:
    """DICOMweb's search, retrieval and (POST) storage."""
    store = the_app().datastore()
    if not isinstance(store, Pacs):
        raise checks.refuse(404, "These studies are files: there is no PACS behind this server.")
    resource = re.sub(r"^(wado|qido|stow)/", "", path)
    if not _RESOURCE.fullmatch(resource) or ".." in resource:
        raise checks.refuse(404, f"{resource[:100]!r} is nothing of DICOMweb's.")
    if request.method == "POST" and not re.fullmatch(rf"studies(/{_UID})?", resource):
        raise checks.refuse(405, "Only studies take new objects.")
    headers = {name: request.headers[name] for name in _SENT if name in request.headers}
    answer = store.web.pass_on(request.method, resource, request.url.query, headers, content)
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
