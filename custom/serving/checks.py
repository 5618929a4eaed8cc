"""What a request may say, checked before anything touches a path. What it may not is a 4xx with one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.utils.others.generic import device_list

from custom.serving.grids import EXTENSIONS
from custom.serving.label_app import BrainMRIApp
from custom.serving.pacs import Pacs

TAGS = ("final", "original")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._\-]{0,126}[A-Za-z0-9])?")
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RESERVED = re.compile(
    r"strategy|made|instances|uncertainty|dice|name|ts|path|labels|model|params|warnings|Study|Series"
)
_UPLOADS = (".nii.gz", ".nii")
_DEEPEST = 20


def refuse(status: int, sentence: str) -> HTTPException:
    return HTTPException(status_code=status, detail=sentence)


def model(app: BrainMRIApp, name: str) -> str:
    return _known(name, app.bundles, "model")


def strategy(app: BrainMRIApp, name: str) -> str:
    return _known(name, app._strategies, "strategy")


def scoring(app: BrainMRIApp, name: str) -> str:
    return _known(name, app._scoring_methods, "scoring method")


def tag(name: str) -> str:
    return _known(name or "final", dict.fromkeys(TAGS), "label tag")


def image(app: BrainMRIApp, image_id: str) -> str:
    """An image's id that the studies have."""
    store = app.datastore()
    known = store.knows(image_id) if isinstance(store, Pacs) else image_id in store.list_images()
    if not known:
        raise refuse(404, f"There is no image {image_id[:100]!r} in the studies: /datastore/?output=all lists them.")
    return image_id


def session(app: BrainMRIApp, session_id: str) -> str:
    """A session's id that the server gave."""
    if not _SESSION.fullmatch(session_id) or not app.sessions().get_session(session_id, update_ts=False):
        raise refuse(404, f"There is no session {session_id[:100]!r}: upload the scan again.")
    return session_id


def new_image(app: BrainMRIApp, image_id: str, filename: str | None) -> tuple[str, str]:
    """The id and ending of a file that is to join the studies."""
    if isinstance(app.datastore(), Pacs):
        raise refuse(405, "These studies are a PACS: send new series to it, by DICOM.")
    ending = upload_ending(filename, _UPLOADS)
    wanted = image_id or Path(filename or "").name.removesuffix(ending)
    if not _NAME.fullmatch(wanted) or ".." in wanted:
        raise refuse(400, f"An image can't be named {wanted[:100]!r}: use letters, digits, '_', '-', '.' and spaces.")
    folder = Path(app.studies)
    if any((folder / f"{wanted}{one}").exists() for one in _UPLOADS):
        raise refuse(409, f"There is an image {wanted!r} already: give another name, nothing is overwritten.")
    return wanted, ending


def upload_ending(filename: str | None, endings: tuple[str, ...]) -> str:
    found = next((one for one in endings if str(filename or "").endswith(one)), None)
    if found is None:
        raise refuse(400, f"A file named {str(filename)[:100]!r} isn't taken: send {', '.join(endings)}.")
    return found


def parsed(text: str | bytes | None) -> dict[str, Any]:
    """A JSON object; {} for nothing."""
    if not text:
        return {}

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    try:
        content = json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise refuse(400, f"The parameters are no JSON that can be read ({str(error)[:100]}).") from error
    if content is None:
        return {}
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise refuse(400, "The parameters have a number or a letter that JSON can't keep.") from error
    if not isinstance(content, dict):
        raise refuse(400, f"The parameters must be a JSON object, got a {type(content).__name__}.")
    if _depth(content) > _DEEPEST:  # it may be kept in the datastore's file, which must be read again
        raise refuse(400, f"The parameters are nested more than {_DEEPEST} deep.")
    return content


def _depth(content: Any) -> int:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def parsed_part(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One model's parameters among several models'."""
    part = params.get(name) or {}
    if not isinstance(part, dict):
        raise refuse(400, f"{name}'s parameters must be a JSON object, got a {type(part).__name__}.")
    return part


def infer_params(app: BrainMRIApp, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """An inference's parameters."""
    weights = [app.bundles[name].weights, "newest", *(one.name for one in app.bundles[name].find_weights())]
    return _checked(
        params,
        {
            "device": _one_of(device_list()),
            "weights": _one_of(weights),
            "result_extension": _one_of(EXTENSIONS),
            "result_dtype": _one_of(("uint8",)),
            "result_compress": _is(bool, "True or False"),
            "restore_label_idx": _is(bool, "True or False"),
        },
    )


def train_params(app: BrainMRIApp, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A training's parameters."""
    dims = len(app._trainers[name].config()["roi_size"].split())
    return _checked(
        params,
        {
            "device": _one_of(device_list()),
            "max_epochs": _number(int, 1, 10000),
            "learning_rate": _number(float, 1e-8, 1),
            "roi_size": _sizes(dims),
        },
    )


def label_params(app: BrainMRIApp, params: Mapping[str, Any]) -> dict[str, Any]:
    """What comes with a label map; a viewer's further words on it are left out."""
    kept = {key: value for key, value in params.items() if key in ("label_info", "model")}
    if "model" in kept:
        model(app, str(kept["model"]))
    label_info = kept.get("label_info") or []
    if not isinstance(label_info, list) or not all(isinstance(one, dict) for one in label_info):
        raise refuse(400, 'label_info must be a list like [{"name": "CSF"}].')
    return kept


def info(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a reviewer writes beside an image or a label map."""
    if bad := [key for key in content if _RESERVED.match(key)]:
        raise refuse(400, f"{bad[0][:50]!r} is the server's own: name it otherwise.")
    if len(json.dumps(content)) > 10_000:
        raise refuse(413, "That is too much for a note: 10000 letters are taken.")
    return dict(content)


def _checked(params: Mapping[str, Any], known: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    given = {key: value for key, value in params.items() if key not in ("client_id", "logging")}
    if unknown := sorted(set(given) - set(known)):
        raise refuse(400, f"There is no parameter {unknown[0][:50]!r}: the known ones are {sorted(known)}.")
    return {key: known[key](key, value) for key, value in given.items() if value is not None}


def _one_of(values: Any) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        chosen = value[0] if isinstance(value, list) and value else value  # viewers send a list's choices back whole
        if chosen not in list(values):
            raise refuse(400, f"{key} must be one of {list(dict.fromkeys(values))}, got {str(value)[:50]!r}.")
        return chosen

    return check


def _is(kind: type, says: str) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise refuse(400, f"{key} must be {says}, got {str(value)[:50]!r}.")
        return value

    return check


def _number(kind: type, low: float, high: float) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        try:
            number = float(value)  # some viewers send texts
            fits = not isinstance(value, bool) and low <= number <= high and kind(number) == number
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise refuse(400, f"{key} must be {low} to {high}, got {str(value)[:50]!r}.")
        return kind(number)

    return check


def _sizes(dims: int) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        parts = value.split() if isinstance(value, str) else value
        if not isinstance(parts, list) or len(parts) != dims:
            raise refuse(400, f"{key} must be {dims} numbers, got {str(value)[:50]!r}.")
        return [_number(int, 8, 1024)(key, one) for one in parts]

    return check


def _known(name: str, known: Mapping[str, Any], what: str) -> str:
    if name not in known:
        raise refuse(404, f"There is no {what} {name[:100]!r}: name one of {sorted(known)}.")
    return name
