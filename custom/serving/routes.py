"""Routes for segmentation, active learning, training and scoring, models, logs and the login.

Together with custom.serving.study_routes this is the part of MONAI Label's REST interface that its clients, 3D Slicer
and OHIF, use. Other routes of MONAI Label are not served. Each route checks its parameters (custom.serving.checks),
then calls MONAI Label's app and tasks. Routes are plain functions, which run in threads, so that the server answers
other requests during a segmentation.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, BackgroundTasks, Form, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.utils.async_tasks import utils as async_tasks
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder

from custom.checkpoints.find import CORRECTED
from custom.errors import MissingDataError
from custom.serving import checks, progress, tasks
from custom.serving.inputs import ASKS_PACS, Content, place_in_queue, the_app

router = APIRouter()
_starting = threading.Lock()  # requests run in threads


@router.get("/info/", dependencies=[ASKS_PACS])
def info() -> Any:
    """Models, trainers, strategies and the state of the studies."""
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
    """Segments an image of the studies, the best series of a study on a PACS, or the scan of a session."""
    app = the_app()
    name, given = checks.model(app, model), checks.parse_json(params)
    given.pop("label_info", None)  # a viewer's colours; the result has the labels of the bundle
    request = checks.infer_params(app, name, given) | {"model": name}
    if session_id and (output == "dicom_seg" or request.get("store")):
        raise checks.refuse(400, "DICOM SEG needs a series of the PACS. For an uploaded scan use output=image.")
    if session_id:
        request["session_image"] = app.sessions().get_session(checks.session(app, session_id)).image
    if output == "dicom_seg":
        request["result_extension"] = ".nii.gz"
    with place_in_queue():
        if not session_id:
            image, chosen = checks.image_or_study(app, image)
            request["image"] = image
        result = app.infer(request)
        if not session_id and chosen:
            result["params"]["chosen"] = chosen
    if output != "dicom_seg":
        background_tasks.add_task(Path(result["file"]).unlink)
        return _answer(Path(result["file"]), result["params"], output)
    try:
        seg = app.dicom_seg(name, image, result["file"], result["params"])
    finally:
        Path(result["file"]).unlink()
    background_tasks.add_task(seg.unlink)
    return FileResponse(seg, media_type="application/dicom", filename=f"{name}.dcm")


@router.get("/infer/")
def segmentations() -> Any:
    """The segmentations that run or wait in this server, and how far they are."""
    return progress.described()


@router.delete("/infer/")
def cancel(id: str = "", image: str = "", model: str = "") -> Any:
    """Cancels the segmentations that match; their own requests end with status 409. Without a name, all of them."""
    if not (cancelled := progress.cancel(id, image, model)):
        raise checks.refuse(404, "No such segmentation runs or waits. GET /infer/ lists them.")
    return cancelled


def _answer(file: Path, params: dict[str, Any], output: str | None) -> Any:
    """A segmentation as a viewer asks for it: the file, its parameters, or both as a form."""
    if output == "json":
        return params
    media_type = get_mime_type(str(file))
    if output == "image":
        return FileResponse(file, media_type=media_type, filename=file.name)
    form = MultipartEncoder(
        {
            "params": (None, json.dumps(params), "application/json"),
            "image": (file.name, file.read_bytes(), media_type),
        }
    )
    return Response(form.to_string(), media_type=form.content_type)


@router.post("/activelearning/{strategy}")
def next_sample(strategy: str, params: Content) -> Any:
    """The image to label next, {} if all are labelled."""
    app = the_app()
    name = checks.strategy(app, strategy)
    with place_in_queue():
        sample = app.next_sample({"strategy": name})
    if not sample:
        return {}
    client = str(params.get("client_id") or "")[:200]
    store, image_id = app.datastore(), sample["id"]
    earlier = store.get_image_info(image_id).get("strategy", {})
    store.update_image_info(image_id, {"strategy": earlier | {name: {"ts": int(time.time()), "client_id": client}}})
    return sample | store.get_image_info(image_id)


def _status(task: str) -> Callable[..., Any]:
    def status(all: bool = False, check_if_running: bool = False) -> Any:
        state, detail = AsyncTask.status(task, all, check_if_running)
        if state is None:
            raise checks.refuse(404, detail)
        return [tasks.with_progress(one) for one in state] if all else tasks.with_progress(state)

    return status


def _stop(task: str) -> Callable[[], Any]:
    return lambda: tasks.stop(task, [bundle.output_dir / CORRECTED for bundle in the_app().bundles.values()]) or {}


for path, task in {"/train/": "train", "/scoring/": "scoring", "/batch/infer": "batch_infer"}.items():
    router.add_api_route(path, _status(task), methods=["GET"], name=f"status of {task}")
    router.add_api_route(path, _stop(task), methods=["DELETE"], name=f"stop {task}")


@router.post("/train/", dependencies=[ASKS_PACS])
def train_all(params: Content) -> Any:
    """Trains the models that the body names; without names, all that have enough saved labels (OHIF's button)."""
    app = the_app()
    named = [checks.trainer(app, name) for name in params if name != "client_id"]
    models = named or [name for name in app._trainers if app.can_train(name)]
    if not models:
        raise MissingDataError("No model can be trained yet. Save label maps of at least two subjects.")
    asked = {name: checks.train_params(app, name, checks.params_of_model(params, name)) for name in models}
    started = _start("train", [{"model": name} | chosen for name, chosen in asked.items()], enqueue=True)
    return dict(zip(asked, started, strict=True))


@router.post("/train/{model}", dependencies=[ASKS_PACS])
def train(model: str, params: Content, enqueue: bool = False) -> Any:
    """Trains one model on its saved labels."""
    app = the_app()
    name = checks.trainer(app, model)
    return _start("train", [{"model": name} | checks.train_params(app, name, params)], enqueue)[0]


@router.post("/scoring/{method}")
def score(method: str, run_sync: bool = False) -> Any:
    """Scores predictions against saved labels, or measures uncertainty."""
    app = the_app()
    name = checks.scoring(app, method)
    with place_in_queue():
        return app.scoring({"method": name}) if run_sync else _start("scoring", [{"method": name}])[0]


@router.post("/batch/infer/{model}", dependencies=[ASKS_PACS])
def batch_infer(
    model: str,
    params: Content,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
) -> Any:
    """Segments many images of the studies."""
    app = the_app()
    name = checks.model(app, model)
    ignored = ("save_label", "label_tag", "multi_gpu", "gpus", "max_workers", "max_batch_size")  # of MONAI Label
    chosen = checks.infer_params(app, name, {key: value for key, value in params.items() if key not in ignored})
    # Two workers take turns. With one worker MONAI Label would stop at the first image that fails.
    fixed = {"multi_gpu": False, "max_workers": 2, "label_tag": "original"}
    return _start("batch_infer", [{"model": name, "images": images.value} | chosen | fixed])[0]


def _start(method: str, requests: list[dict[str, Any]], enqueue: bool = False) -> list[Any]:
    """Starts tasks, each in a process of its own, one after another; all of them or none.

    Args:
        method: "train", "scoring" or "batch_infer".
        requests: of the tasks.
        enqueue: whether they may wait for others. A model that trains or waits already is never queued again.

    Returns:
        What MONAI Label says about each task.
    """
    with _starting:
        unfinished = [
            task["request"] for task in async_tasks.tasks(method) if task["status"] in ("SUBMITTED", "RUNNING")
        ]
        models = {request.get("model") for request in requests}
        if enqueue:
            unfinished = [request for request in unfinished if request.get("model") in models]
        if unfinished:
            running = f"A task of {method} runs already ({unfinished[0].get('model') or unfinished[0].get('method')})"
            raise checks.refuse(429, f"{running}. Wait until it is done, or stop it with DELETE.")
        return [AsyncTask.run(method, request=request, enqueue=True)[0] for request in requests]


@router.get("/model/info/{model}")
def model_info(model: str) -> Any:
    """The size, date and checksum of a model's weights."""
    app = the_app()
    return app.model_info(checks.model(app, model))


@router.get("/model/{model}")
def download_model(model: str) -> Any:
    """A model's weights."""
    app = the_app()
    name = checks.model(app, model)
    return FileResponse(app.model_file(name), filename=f"{name}.pt")


@router.get("/logs/")
def logs(lines: int = 300) -> PlainTextResponse:
    """The last lines of the server's log."""
    file = Path(the_app().app_dir) / "logs" / "app.log"
    with file.open(encoding="utf-8", errors="replace") as text:
        return PlainTextResponse("".join(deque(text, max(1, min(lines, 5000)))))


@router.get("/auth/")
def auth(request: Request) -> Any:
    """Whether a client must log in."""
    return {"enabled": bool(request.app.state.token), "client_id": "", "realm": ""}


@router.post("/auth/token")
def auth_token(request: Request, password: str = Form("")) -> Any:
    """The login of 3D Slicer: any user name, and the token as the password."""
    token = request.app.state.token
    if not token or not hmac.compare_digest(password.encode(), token.encode()):
        raise checks.refuse(401, "The password is not the token of this server.")
    return {"access_token": token, "token_type": "Bearer"}


@router.get("/auth/token/valid")
def auth_valid() -> Response:
    """200 for a valid token; the guard refuses others before they come here."""
    return Response(status_code=200)
