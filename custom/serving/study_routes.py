"""Routes for images, label maps, notes on them, and uploaded scans (sessions)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import FileResponse

from custom.errors import MissingDataError
from custom.reading.volumes import read_volume
from custom.serving import checks
from custom.serving.grids import EXTENSIONS
from custom.serving.inputs import ASKS_PACS, Upload, temporary_upload, the_app

router = APIRouter(dependencies=[ASKS_PACS])


@router.get("/datastore/")
def datastore(output: Literal["stats", "all", "train"] = "stats") -> Any:
    """Counts of images and labels, all images with their labels, or pairs of image and label."""
    store = the_app().datastore()
    store.list_images()
    return {"stats": store.status, "all": store.json, "train": store.datalist}[output]()


@router.put("/datastore/", include_in_schema=False)
@router.put("/datastore/image")
def add_image(file: Upload, image: str = "", params: str = Form("{}")) -> Any:
    """Adds a scan to the studies."""
    app = the_app()
    checks.parse_json(params)
    name, ending = checks.new_image(app, image, file.filename)
    with temporary_upload(file, ending) as path:
        if read_volume(path).ndim < 3:
            raise checks.refuse(400, "The file is not a volume. Send a 3D NIfTI file.")
        app.datastore().add_image(name, str(path), {})
    return {"image": name}


@router.head("/datastore/image", include_in_schema=False)
@router.get("/datastore/image")
def get_image(image: str) -> Any:
    """The file of an image."""
    app = the_app()
    return _file(app.datastore().get_image_uri(checks.image(app, image)))


@router.get("/datastore/image/info")
def image_info(image: str) -> Any:
    """What the server and reviewers noted about an image."""
    app = the_app()
    return app.datastore().get_image_info(checks.image(app, image))


@router.put("/datastore/image/info")
def put_image_info(image: str, info: str = Form("{}")) -> Any:
    """Adds a reviewer's note to an image."""
    app = the_app()
    image_id, note = checks.image(app, image), checks.note(checks.parse_json(info))
    app.datastore().get_image_uri(image_id)  # fetches a series of the PACS, which has no entry before
    app.datastore().update_image_info(image_id, note)
    return {}


@router.put("/datastore/label")
def save_label(image: str, label: Upload, tag: str = "final", params: str = Form("{}")) -> Any:
    """Saves a viewer's label map."""
    app = the_app()
    image_id, known_tag = checks.image(app, image), checks.tag(tag)
    label_params = checks.label_params(app, checks.parse_json(params))
    with temporary_upload(label, checks.upload_ending(label.filename, (*EXTENSIONS, ".bin"))) as path:
        return app.save_label(image_id, path, known_tag, label_params)


@router.head("/datastore/label", include_in_schema=False)
@router.get("/datastore/label")
def get_label(label: str = "", image: str = "", tag: str = "final") -> Any:
    """The file of a saved label map."""
    app = the_app()
    return _file(app.datastore().get_label_uri(checks.image(app, label or image), checks.tag(tag)))


@router.get("/datastore/label/info")
def label_info(label: str, tag: str = "final") -> Any:
    """What the server and reviewers noted about a label map."""
    app = the_app()
    return app.datastore().get_label_info(checks.image(app, label), checks.tag(tag))


@router.put("/datastore/label/info")
def put_label_info(label: str, tag: str = "final", info: str = Form("{}")) -> Any:
    """Adds a reviewer's note to a label map."""
    app = the_app()
    label_id, known_tag = checks.image(app, label), checks.tag(tag)
    if not app.datastore().get_label_uri(label_id, known_tag):
        raise MissingDataError(f"{label_id} has no label map {known_tag!r}. Save one first.")
    app.datastore().update_label_info(label_id, known_tag, checks.note(checks.parse_json(info)))
    return {}


def _file(path: str) -> FileResponse:
    if not path or not Path(path).is_file():
        raise checks.refuse(404, "The label map does not exist. Save one first.")
    return FileResponse(path, filename=Path(path).name)


@router.put("/session/")
def create_session(files: Annotated[list[UploadFile], File()]) -> Any:
    """Takes a scan that does not join the studies."""
    if len(files) != 1:
        raise checks.refuse(400, f"A session takes one scan, got {len(files)}. Add several scans to the studies.")
    with temporary_upload(files[0], checks.upload_ending(files[0].filename, EXTENSIONS)) as path:
        if read_volume(path).ndim < 3:
            raise checks.refuse(400, "The file is not a volume. Send a 3D NIfTI or NRRD file.")
        session_id, session = the_app().sessions().add_session(str(path))
    return {"session_id": session_id, "session_info": session.to_json()}


@router.get("/session/{session_id}")
def get_session(session_id: str) -> Any:
    """A session's description."""
    app = the_app()
    return app.sessions().get_session(checks.session(app, session_id)).to_json()


@router.delete("/session/{session_id}")
def remove_session(session_id: str) -> Any:
    """Deletes a session and its scan."""
    app = the_app()
    app.sessions().remove_session(checks.session(app, session_id))
    return {}
