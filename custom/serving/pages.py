"""The server's first page, the files of OHIF, and a proxy to the PACS for OHIF."""

from __future__ import annotations

import html
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

import custom
from custom.serving import checks
from custom.serving.inputs import ASKS_PACS, Body, the_app
from custom.serving.pacs import Pacs

router = APIRouter()
OHIF = Path(str(files("monailabel"))) / "endpoints" / "static" / "ohif"
_UID = r"[0-9.]{1,64}"
# only the resources of DICOMweb: a PACS often has another interface under the same address
_RESOURCE = re.compile(
    rf"(studies|series|instances)|studies/{_UID}(/(metadata|rendered|thumbnail|series|instances))?"
    rf"|studies/{_UID}/series/{_UID}(/(metadata|rendered|thumbnail|instances))?"
    rf"|studies/{_UID}/series/{_UID}/instances/{_UID}"
    rf"(/(metadata|rendered|thumbnail|bulkdata(/[0-9A-Fa-f/]+)?|frames/[0-9,]+(/(rendered|thumbnail))?))?"
)
_SENT = ("accept", "content-type")  # headers that the proxy passes on
# what a viewer reads; never a page or a drawing, whose scripts would act in the server's name
_TYPES = re.compile(
    r"(application/(dicom|dicom\+json|json|octet-stream)|multipart/related|(image|video)/(?!svg)[\w.+-]+)\s*(;|$)"
)


@router.get("/", include_in_schema=False)
def first_page() -> HTMLResponse:
    """The served models, and where to go from here."""
    app = the_app()
    models = "".join(
        f"<li><b>{name}</b>: {html.escape(bundle.description)}</li>" for name, bundle in app.bundles.items()
    )
    viewer = '<p><a href="/ohif/">OHIF viewer</a></p>' if isinstance(app.datastore(), Pacs) else ""
    return HTMLResponse(
        f"<!doctype html><title>{app.name}</title><h1>{app.name}</h1><p>{custom.RESEARCH_USE_ONLY}</p>"
        f"<ul>{models}</ul>{viewer}<p>3D Slicer: enter the address of this page in its MONAI Label module.</p>"
    )


@router.get("/ohif/{path:path}", include_in_schema=False)
def ohif(path: str, request: Request) -> Response:
    """A file of OHIF, or its page for any other address, because OHIF handles addresses itself."""
    try:
        file = (OHIF / path).resolve()
        is_file = bool(path) and file.is_relative_to(OHIF.resolve()) and file.is_file()
    except (OSError, ValueError):  # not a valid name of a file
        is_file = False
    if is_file:
        return FileResponse(file)
    page = FileResponse(OHIF / "index.html", headers={"cache-control": "no-store"})
    address = f"{request.app.state.public_url}/" if request.app.state.public_url else str(request.base_url)
    # without this cookie, OHIF's panel looks for the server on port 8000
    page.set_cookie("MONAILABEL_SERVER_URL", quote(address, safe=""), path="/", secure=address.startswith("https://"))
    return page


@router.api_route(
    "/proxy/dicom/{path:path}", methods=["GET", "POST"], include_in_schema=False, dependencies=[ASKS_PACS]
)
def proxy(path: str, request: Request, content: Body) -> Response:
    """Passes DICOMweb searches, retrievals and (POST) storage on to the PACS."""
    store = the_app().datastore()
    if not isinstance(store, Pacs):
        raise checks.refuse(404, "The studies are files, so this server has no PACS.")
    resource = re.sub(r"^(wado|qido|stow)/", "", path)
    if not _RESOURCE.fullmatch(resource) or ".." in resource:
        raise checks.refuse(404, f"{resource[:100]!r} is not a resource of DICOMweb.")
    if request.method == "POST" and not re.fullmatch(rf"studies(/{_UID})?", resource):
        raise checks.refuse(405, "New objects can only be sent to studies.")
    headers = {name: request.headers[name] for name in _SENT if name in request.headers}
    answer = store.web.pass_on(request.method, resource, request.url.query, headers, content)
    media_type = answer.headers.get("content-type", "application/octet-stream")
    if answer.content and not _TYPES.match(media_type.lower()):
        status = answer.status_code if answer.status_code >= 400 else 502
        kind = f"{media_type[:50]!r}, status {answer.status_code}"
        raise checks.refuse(status, f"The PACS did not answer with DICOM, but with {kind}. See its log.")
    return Response(
        answer.content, answer.status_code, media_type=media_type, headers={"x-content-type-options": "nosniff"}
    )
