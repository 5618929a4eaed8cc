"""A PACS by DICOMweb: what it answers, or one sentence on why it doesn't."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pydicom
import requests
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.datastore.dicom import DICOMwebClientX
from requests.adapters import HTTPAdapter

from custom.errors import DataError
from custom.serving.contrasts import contrast_of

_KEPT = 10  # seconds that a list of series is taken as it was
_FIELDS = ("SeriesDescription", "ProtocolName", "Modality", "NumberOfSeriesRelatedInstances")


class PacsError(DataError):
    """The PACS doesn't do what DICOMweb asks of it."""


class DicomWeb:
    """A DICOMweb server; each method raises PacsError where it fails.

    Args:
        url: of the server, as http://127.0.0.1:8042/dicom-web.
        user, password: for HTTP's basic authentication, where the server asks for it.
    """

    def __init__(self, url: str, user: str = "", password: str = "") -> None:
        self.url = url
        self._session = create_session_from_user_pass(user, password) if user else requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Patient())
        self._session.max_redirects = 0  # studies go to nobody whom the user didn't name
        self._client = DICOMwebClientX(url=url, session=self._session)
        self._client.set_http_retry_params(retry=False)  # half a minute of trying again, before a person is told
        self._lists: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except requests.ConnectionError as error:
            raise PacsError(f"The PACS {self.url} doesn't answer ({type(error).__name__}): start it.") from error
        except Exception as error:  # the client fails in many ways at what is no DICOM
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise PacsError(f"The PACS {self.url} couldn't {what} ({reason}): look at its log.") from error

    def all_series(self, modality: str) -> list[dict[str, Any]]:
        """Every series of a modality, as `search` describes it; a list is taken as it was for 10 s."""
        when, found = self._lists.get(modality, (0.0, []))
        if time.monotonic() - when > _KEPT or not when:
            found = self.search(search_filters={"Modality": modality})
            self._lists[modality] = time.monotonic(), found
        return found

    def search(self, **arguments: Any) -> list[dict[str, Any]]:
        """{"uid", "study", "modality", "text", "contrast", "instances"} of series, by dicomweb_client's arguments."""
        with self._asked("list its series"):
            answer = self._client.search_for_series(fields=list(_FIELDS), **arguments)
            given = arguments.get("study_instance_uid", "")  # a PACS needn't repeat what it was asked for
            return [_described(pydicom.Dataset.from_json(one), given) for one in answer]

    def find(self, uid: str) -> dict[str, Any] | None:
        """An MR series, or None."""
        for one in self.all_series("MR"):
            if one["uid"] == uid:
                return one
        found = [one for one in self.search(search_filters={"SeriesInstanceUID": uid}) if one["uid"] == uid]
        return found[0] if found and found[0]["modality"] == "MR" else None

    def metadata(self, series: Mapping[str, Any]) -> pydicom.Dataset:
        """A series' first object without its voxels."""
        with self._asked(f"describe the series {series['uid']}"):
            answer = self._client.retrieve_series_metadata(series["study"], series["uid"])
            return pydicom.Dataset.from_json(answer[0])

    def instances(self, series: Mapping[str, Any]) -> list[pydicom.Dataset]:
        """A series' objects, one at least."""
        with self._asked(f"send the series {series['uid']}"):
            found = self._client.retrieve_series(series["study"], series["uid"])
            if not found:
                raise ValueError("it sent nothing")
            return found

    def store(self, instance: pydicom.Dataset) -> None:
        """Sends an object by STOW-RS."""
        with self._asked("take the object"):
            if self._client.store_instances([instance]).get("FailedSOPSequence"):
                raise ValueError("it refused it")
        self._lists.pop(str(instance.Modality), None)

    def pass_on(self, method: str, resource: str, query: str, headers: Mapping[str, str], content: bytes) -> Any:
        """The PACS's own answer to a viewer's request (requests.Response)."""
        url = f"{self.url}/{resource}" + (f"?{query}" if query else "")
        with self._asked(f"answer {method} {resource}"):
            answer = self._session.request(method, url, headers=headers, data=content or None)
            if answer.status_code >= 500:
                raise ValueError(f"status {answer.status_code}")
            return answer


class _Patient(HTTPAdapter):
    """Waits for a PACS this long and no longer: 10 s for a connection, 5 minutes for its next byte."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or (10, 300)
        return super().send(request, *args, **kwargs)


def _described(one: pydicom.Dataset, study: str = "") -> dict[str, Any]:
    texts = [str(one.get(name, "") or "") for name in _FIELDS[:2]]
    return {
        "uid": str(one.SeriesInstanceUID),
        "study": str(one.get("StudyInstanceUID", study)),
        "instances": int(one.get("NumberOfSeriesRelatedInstances", 0) or 0),
        "modality": str(one.get("Modality", "")),
        "text": next((text for text in texts if text), "no description"),
        "contrast": next((found for text in texts if (found := contrast_of(text))), None),
    }
