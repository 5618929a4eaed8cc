"""MONAI Label's REST interface, as its clients, 3D Slicer and OHIF use it; what isn't here isn't served.

Each route checks its words (custom.serving.checks), then calls MONAI Label's own app and tasks. Routes are plain
functions, which run in threads: a segmentation doesn't keep the server from answering others.
"""

from __future__ import annotations

import contextlib
import hmac
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse
from monailabel.endpoints.infer import send_response
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask

from custom.errors import MissingDataError
from custom.reading.volumes import open_volume
from custom.serving import checks
from custom.serving.grids import EXTENSIONS
from custom.serving.label_app import BrainMRIApp

router = APIRouter()
WAITING = 8  # segmentations that may wait for the one that runs
_turns = threading.BoundedSemaphore(WAITING + 1)


def the_app() -> BrainMRIApp:
    return app_instance()


async def json_body(request: Request) -> dict[str, Any]:
    """A body of JSON, whatever type it is sent as."""
    return checks.parsed(await request.body())


Content = Annotated[dict[str, Any], Depends(json_body)]
Upload = Annotated[UploadFile, File()]


@contextlib.contextmanager
def uploaded(upload: UploadFile, ending: str) -> Iterator[Path]:
    """An uploaded file under a name of the server's own, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="brainmri-label-") as folder:
        path = Path(folder) / f"upload{ending}"
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        yield path


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """A place in the queue of segmentations."""
    if not _turns.acquire(blocking=False):
        raise checks.refuse(429, f"{WAITING} segmentations are waiting already: try again in a minute.")
    try:
        yield
    finally:
        _turns.release()


@router.get("/info/")
def info() -> Any:
    return the_app().info()


@router.post("/infer/{model}")
def infer(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    output: Literal["image", "json", "all", "dicom_seg"] | None = None,
) -> Any:
    app = the_app()
    name, given = checks.model(app, model), checks.parsed(params)
    given.pop("label_info", None)  # a viewer's colours; the bundle's own labels are written
    request = checks.infer_params(app, name, given) | {"model": name}
    if session_id and output == "dicom_seg":
        raise checks.refuse(400, "DICOM SEG needs a series on the PACS: an uploaded scan has none.")
    if session_id:
        request["session_image"] = app.sessions().get_session(checks.session(app, session_id)).image
    else:
        request["image"] = checks.image(app, image)
    if output == "dicom_seg":
        request["result_extension"] = ".nii.gz"
    with turn():
        result = app.infer(request)
    if output != "dicom_seg":
        return send_response(app.datastore(), result, output, background_tasks)
    try:
        seg = app.dicom_seg(name, image, result["file"], result["params"])
    finally:
        Path(result["file"]).unlink()
    background_tasks.add_task(seg.unlink)
    return FileResponse(seg, media_type="application/dicom", filename=f"{name}.dcm")


@router.post("/activelearning/{strategy}")
def next_sample(strategy: str, params: Content) -> Any:
    app = the_app()
    name = checks.strategy(app, strategy)
    with turn():
        found = app.next_sample({"strategy": name})
    if not found:
        return {}
    client = str(params.get("client_id") or "")[:200]
    store, image_id = app.datastore(), found["id"]
    about = store.get_image_info(image_id)
    given = about.get("strategy", {}) | {name: {"ts": int(time.time()), "client_id": client}}
    store.update_image_info(image_id, {"strategy": given})
    return found | store.get_image_info(image_id)


def _status(task: str) -> Any:
    def status(all: bool = False, check_if_running: bool = False) -> Any:
        found, detail = AsyncTask.status(task, all, check_if_running)
        if found is None:
            raise checks.refuse(404, detail)
        return found

    return status


def _stop(task: str) -> Any:
    return lambda: AsyncTask.stop(task) or {}


for path, task in {"/train/": "train", "/scoring/": "scoring", "/batch/infer": "batch_infer"}.items():
    router.add_api_route(path, _status(task), methods=["GET"], name=f"status of {task}")
    router.add_api_route(path, _stop(task), methods=["DELETE"], name=f"stop {task}")


@router.post("/train/")
def train_all(params: Content) -> Any:
    app = the_app()
    named = [checks.model(app, name) for name in params if name != "client_id"]
    models = named or [name for name in app.bundles if app.can_train(name)]  # OHIF's button names none
    if not models:
        raise MissingDataError("No model can be trained yet: save the labels of two persons.")
    asked = {name: checks.train_params(app, name, checks.parsed_part(params, name)) for name in models}
    return {name: _start("train", {"model": name}, chosen, enqueue=True) for name, chosen in asked.items()}


@router.post("/train/{model}")
def train(model: str, params: Content, enqueue: bool = False) -> Any:
    app = the_app()
    name = checks.model(app, model)
    return _start("train", {"model": name}, checks.train_params(app, name, params), enqueue)


@router.post("/scoring/{method}")
def score(method: str, run_sync: bool = False) -> Any:
    app = the_app()
    name = checks.scoring(app, method)
    if not run_sync:
        return _start("scoring", {"method": name}, {}, enqueue=False)
    with turn():
        return app.scoring({"method": name})


@router.post("/batch/infer/{model}")
def batch_infer(
    model: str,
    params: Content,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
) -> Any:
    app = the_app()
    name = checks.model(app, model)
    usual = ("save_label", "label_tag", "multi_gpu", "gpus", "max_workers", "max_batch_size")  # MONAI Label's own
    chosen = checks.infer_params(app, name, {key: value for key, value in params.items() if key not in usual})
    # of two workers one waits for the other's segmentation; with one, MONAI Label would stop at the first that fails
    fixed = {"multi_gpu": False, "max_workers": 2, "label_tag": "original"}
    return _start("batch_infer", {"model": name, "images": images.value}, chosen | fixed, enqueue=False)


def _start(method: str, request: dict[str, Any], params: dict[str, Any], enqueue: bool) -> Any:
    found, detail = AsyncTask.run(method, request=request, params=params, enqueue=enqueue)
    if found is None:
        raise checks.refuse(429, f"{detail.strip('+ ')}: wait for it, or stop it with DELETE.")
    return found


@router.get("/datastore/")
def datastore(output: Literal["stats", "all", "train"] = "stats") -> Any:
    store = the_app().datastore()
    store.list_images()
    return {"stats": store.status, "all": store.json, "train": store.datalist}[output]()


@router.put("/datastore/", include_in_schema=False)
@router.put("/datastore/image")
def add_image(file: Upload, image: str = "", params: str = Form("{}")) -> Any:
    app = the_app()
    checks.parsed(params)
    name, ending = checks.new_image(app, image, file.filename)
    with uploaded(file, ending) as path:
        if len(open_volume(path).shape) < 3:
            raise checks.refuse(400, "That is no volume: send a 3D NIfTI file.")
        app.datastore().add_image(name, str(path), {})
    return {"image": name}


@router.head("/datastore/image", include_in_schema=False)
@router.get("/datastore/image")
def get_image(image: str) -> Any:
    app = the_app()
    return _file(app.datastore().get_image_uri(checks.image(app, image)))


@router.get("/datastore/image/info")
def image_info(image: str) -> Any:
    app = the_app()
    return app.datastore().get_image_info(checks.image(app, image))


@router.put("/datastore/image/info")
def put_image_info(image: str, info: str = Form("{}")) -> Any:
    app = the_app()
    image_id, note = checks.image(app, image), checks.info(checks.parsed(info))
    app.datastore().get_image_uri(image_id)  # a series that nobody opened yet has no entry to write to
    app.datastore().update_image_info(image_id, note)
    return {}


@router.put("/datastore/label")
def save_label(image: str, label: Upload, tag: str = "final", params: str = Form("{}")) -> Any:
    app = the_app()
    image_id, chosen = checks.image(app, image), checks.tag(tag)
    given = checks.label_params(app, checks.parsed(params))
    with uploaded(label, checks.upload_ending(label.filename, (*EXTENSIONS, ".bin"))) as path:
        return app.save_label(image_id, path, chosen, given)


@router.head("/datastore/label", include_in_schema=False)
@router.get("/datastore/label")
def get_label(label: str = "", image: str = "", tag: str = "final") -> Any:
    app = the_app()
    return _file(app.datastore().get_label_uri(checks.image(app, label or image), checks.tag(tag)))


@router.get("/datastore/label/info")
def label_info(label: str, tag: str = "final") -> Any:
    app = the_app()
    return app.datastore().get_label_info(checks.image(app, label), checks.tag(tag))


@router.put("/datastore/label/info")
def put_label_info(label: str, tag: str = "final", info: str = Form("{}")) -> Any:
    app = the_app()
    label_id, chosen = checks.image(app, label), checks.tag(tag)
    if not app.datastore().get_label_uri(label_id, chosen):
        raise MissingDataError(f"{label_id} has no label map {chosen!r}: save one first.")
    app.datastore().update_label_info(label_id, chosen, checks.info(checks.parsed(info)))
    return {}


def _file(path: str) -> FileResponse:
    if not path or not Path(path).is_file():
        raise checks.refuse(404, "There is no such label map: save one first.")
    return FileResponse(path, filename=Path(path).name)


@router.get("/model/info/{model}")
def model_info(model: str) -> Any:
    app = the_app()
    return app.model_info(checks.model(app, model))


@router.get("/model/{model}")
def download_model(model: str) -> Any:
    app = the_app()
    name = checks.model(app, model)
    return FileResponse(app.model_file(name), filename=f"{name}.pt")


@router.put("/session/")
def create_session(files: Annotated[list[UploadFile], File()]) -> Any:
    if len(files) != 1:
        raise checks.refuse(400, f"A session takes one scan, got {len(files)}: put them into the studies.")
    with uploaded(files[0], checks.upload_ending(files[0].filename, EXTENSIONS)) as path:
        session_id, about = the_app().sessions().add_session(str(path))
    return {"session_id": session_id, "session_info": about.to_json()}


@router.get("/session/{session_id}")
def get_session(session_id: str) -> Any:
    app = the_app()
    return app.sessions().get_session(checks.session(app, session_id)).to_json()


@router.delete("/session/{session_id}")
def remove_session(session_id: str) -> Any:
    app = the_app()
    app.sessions().remove_session(checks.session(app, session_id))
    return {}


@router.get("/logs/")
def logs(lines: int = 300) -> PlainTextResponse:
    file = Path(the_app().app_dir) / "logs" / "app.log"
    with file.open(encoding="utf-8", errors="replace") as text:
        return PlainTextResponse("".join(deque(text, max(1, min(lines, 5000)))))


@router.get("/auth/")
def auth(request: Request) -> Any:
    return {"enabled": bool(request.app.state.token), "client_id": "", "realm": ""}


@router.post("/auth/token")
def auth_token(request: Request, password: str = Form(""), username: str = Form("")) -> Any:
    """3D Slicer's login: any name, and the token as the password."""
    token = request.app.state.token
    if not token or not hmac.compare_digest(password.encode(), token.encode()):
        raise checks.refuse(401, "The password isn't this server's token.")
    return {"access_token": token, "token_type": "Bearer"}


@router.get("/auth/token/valid")
def auth_valid() -> Response:
    return Response(status_code=200)  # who isn't let in doesn't come here
