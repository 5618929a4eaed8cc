"""What a request may contain, checked before anything touches a path. The answer to anything else is a 4xx sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from custom.serving.grids import EXTENSIONS
from custom.serving.label_app import BrainMRIApp
from custom.serving.pacs import UID, Pacs
from custom.serving.segmentation import first_of

TAGS = ("final", "original")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._\-]{0,126}[A-Za-z0-9])?")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RESERVED = re.compile(
    r"strategy|made|instances|uncertainty|dice|name|ts|path|labels|model|params|warnings|Study|Series"
)
_UPLOADS = (".nii.gz", ".nii")
_MAX_DEPTH = 20


def refuse(status: int, sentence: str) -> HTTPException:
    """The exception that answers a request with this status and sentence."""
    return HTTPException(status_code=status, detail=sentence)


# names


def model(app: BrainMRIApp, name: str) -> str:
    """The name of a served model."""
    return _known(name, app.bundles, "model")


def trainer(app: BrainMRIApp, name: str) -> str:
    """The name of a model that can be trained."""
    return _known(name, app._trainers, "model to train")


def strategy(app: BrainMRIApp, name: str) -> str:
    """The name of a strategy of active learning."""
    return _known(name, app._strategies, "strategy")


def scoring(app: BrainMRIApp, name: str) -> str:
    """The name of a scoring method."""
    return _known(name, app._scoring_methods, "scoring method")


def tag(name: str) -> str:
    """The tag of a label map; "final" if none is given."""
    return _known(name or "final", TAGS, "label tag")


def _known(name: str, known: Collection[str], kind: str) -> str:
    if name not in known:
        raise refuse(404, f"There is no {kind} {name[:100]!r}. Use one of: {', '.join(sorted(known))}.")
    return name


def image(app: BrainMRIApp, image_id: str) -> str:
    """The id of an image of the studies."""
    store = app.datastore()
    known = store.knows(image_id) if isinstance(store, Pacs) else image_id in store.list_images()
    if not known:
        raise refuse(404, f"The studies have no image {image_id[:100]!r}. /datastore/?output=all lists all images.")
    return image_id


def image_or_study(app: BrainMRIApp, uid: str) -> tuple[str, str]:
    """The id of an image, and "". On a PACS also the best series of a study, and a sentence that names it."""
    store = app.datastore()
    if isinstance(store, Pacs) and not store.knows(uid) and UID.fullmatch(uid) and len(uid) <= 64:
        return store.best_series(uid)
    return image(app, uid), ""


def session(app: BrainMRIApp, session_id: str) -> str:
    """The id of a session, which the server gave."""
    if not _SESSION.fullmatch(session_id) or not app.sessions().get_session(session_id, update_ts=False):
        raise refuse(404, f"There is no session {session_id[:100]!r}. Upload the scan again.")
    return session_id


def new_image(app: BrainMRIApp, image_id: str, filename: str | None) -> tuple[str, str]:
    """The id and file ending of an image to add to the studies."""
    if isinstance(app.datastore(), Pacs):
        raise refuse(405, "The studies are on a PACS. Send new series to the PACS by DICOM.")
    ending = upload_ending(filename, _UPLOADS)
    name = image_id or Path(filename or "").name.removesuffix(ending)
    if not _NAME.fullmatch(name) or ".." in name:
        raise refuse(400, f"{name[:100]!r} is not a valid name. Use letters, digits, '_', '-', '.' and spaces.")
    if any((Path(app.studies) / f"{name}{other}").exists() for other in _UPLOADS):
        raise refuse(409, f"The image {name!r} exists already, and nothing is overwritten. Use another name.")
    return name, ending


def upload_ending(filename: str | None, endings: tuple[str, ...]) -> str:
    """Which of these endings the name of an uploaded file has."""
    for ending in endings:
        if str(filename or "").endswith(ending):
            return ending
    raise refuse(400, f"{str(filename)[:100]!r} has another ending than {', '.join(endings)}. Send such a file.")


# JSON


def parse_json(text: str | bytes | None) -> dict[str, Any]:
    """A JSON object; {} if there is no text."""
    if not text:
        return {}
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # NaN, 1e999 and half letters fail here
    except (ValueError, RecursionError) as error:
        raise refuse(400, f"The parameters are not valid JSON ({str(error)[:100]}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise refuse(400, f"The parameters must be a JSON object, not a {type(content).__name__}.")
    if _depth(content) > _MAX_DEPTH:  # they may be stored in the datastore's file, which must stay readable
        raise refuse(400, f"The parameters are nested more than {_MAX_DEPTH} levels deep.")
    return content


def _depth(content: Any) -> int:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def params_of_model(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters of one model among those of several models."""
    part = params.get(name) or {}
    if not isinstance(part, dict):
        raise refuse(400, f"The parameters of {name} must be a JSON object, not a {type(part).__name__}.")
    return part


def note(content: Mapping[str, Any]) -> dict[str, Any]:
    """A reviewer's note on an image or a label map."""
    if reserved := [key for key in content if _RESERVED.match(key)]:
        raise refuse(400, f"{reserved[0][:50]!r} is reserved for the server. Use another name.")
    if len(json.dumps(content)) > 10_000:
        raise refuse(413, "The note is too long. Send at most 10000 letters.")
    return dict(content)


# parameters

First = BeforeValidator(first_of)  # viewers send a list of choices back whole, with the chosen one first


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


Size = Annotated[int, BeforeValidator(_not_bool), Field(ge=8, le=1024)]


class Params(BaseModel):
    """Parameters of a request; validated with context {field: the values that it may have}."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    device: Annotated[str | None, First] = None

    @field_validator("device", "weights", check_fields=False)
    @classmethod
    def _is_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = (info.context or {}).get(info.field_name, [])
        if value is not None and value not in known:
            raise ValueError(f"Input should be one of {', '.join(dict.fromkeys(known))}")
        return value


class InferParams(Params):
    """What a viewer may set for a segmentation."""

    weights: Annotated[str | None, First] = None
    result_extension: Annotated[Literal[EXTENSIONS] | None, First] = None  # type: ignore[valid-type]
    result_dtype: Annotated[Literal["uint8"] | None, First] = None
    result_compress: StrictBool | None = None
    restore_label_idx: StrictBool | None = None
    store: StrictBool | None = None
    uncertainty: StrictBool | None = None


class TrainParams(Params):
    """What a viewer may set for a training. Some viewers send numbers as text."""

    max_epochs: Annotated[int | None, BeforeValidator(_not_bool), Field(ge=1, le=10_000)] = None
    learning_rate: Annotated[float | None, BeforeValidator(_not_bool), Field(ge=1e-8, le=1)] = None
    roi_size: list[Size] | None = None

    @field_validator("roi_size", mode="before")
    @classmethod
    def _sizes(cls, value: Any, info: ValidationInfo) -> Any:
        sizes = value.split() if isinstance(value, str) else value
        dims = (info.context or {}).get("dims")
        if sizes is not None and (not isinstance(sizes, list) or len(sizes) != dims):
            raise ValueError(f"Input should be {dims} numbers")
        return sizes


class LabelParams(BaseModel):
    """What comes with a label map. Other things that a viewer says about it are ignored."""

    label_info: list[dict[str, Any]] | None = None
    model: str | None = None


def infer_params(app: BrainMRIApp, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a segmentation."""
    bundle = app.bundles[name]
    weights = [bundle.weights, "newest", *(weights.name for weights in bundle.find_weights())]
    return _validated(InferParams, params, device=device_list(), weights=weights)


def train_params(app: BrainMRIApp, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a training."""
    dims = len(app._trainers[name].config()["roi_size"].split())
    return _validated(TrainParams, params, device=device_list(), dims=dims)


def label_params(app: BrainMRIApp, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a label map."""
    validated = _validated(LabelParams, params)
    if "model" in validated:
        model(app, validated["model"])
    return validated


def _validated(schema: type[BaseModel], params: Mapping[str, Any], **context: Any) -> dict[str, Any]:
    """The parameters that are given, without those that are null; any other input is refused (400)."""
    given = {key: value for key, value in params.items() if key not in ("client_id", "logging")}
    try:
        validated: dict[str, Any] = schema.model_validate(given, context=context).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:50]
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(schema.model_fields))
            raise refuse(400, f"There is no parameter {place!r}. Use one of: {known}.") from error
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise refuse(400, f"{place!r} {reason}, got {str(first['input'])[:50]!r}.") from error
    return validated
