"""A PACS by DICOMweb. Each failure is one error with one sentence."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import pydicom
import requests
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.datastore.dicom import DICOMwebClientX
from requests.adapters import HTTPAdapter

from custom.errors import ConfigError, DataError
from custom.serving.contrasts import contrast_of

CALLS = 8  # to the PACS at once
_CONNECT, _SEARCH, _RETRIEVE = 10, 30, 300  # s to wait for a connection, and for the next byte of an answer
_PAGE = 500  # studies that one search asks for
_LIST_IS_VALID = 10  # seconds, after which a list of series is asked for again
_FIELDS = ("SeriesDescription", "ProtocolName", "Modality", "NumberOfSeriesRelatedInstances")


class PacsError(DataError):
    """The PACS does not answer, or its answer is not valid DICOMweb."""


class DicomWeb:
    """A DICOMweb server. Every method raises PacsError if it fails.

    Args:
        url: of the server, like http://127.0.0.1:8042/dicom-web.
        user, password: for HTTP basic authentication, if the server needs it.

    Raises:
        ConfigError: the URL holds a name or a password.
    """

    def __init__(self, url: str, user: str = "", password: str = "") -> None:
        if urlsplit(url).username is not None:  # messages would show them
            raise ConfigError(
                "The URL of the PACS holds a name or a password. Set BRAINMRI_PACS_USER and BRAINMRI_PACS_PASSWORD "
                "instead."
            )
        self.url = url
        self._session = _session(user, password, _RETRIEVE)
        self._client = _client(url, self._session)
        self._searching = _client(url, _session(user, password, _SEARCH))
        self._calls = threading.BoundedSemaphore(CALLS)
        self._lists: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    @contextlib.contextmanager
    def _request(self, action: str) -> Iterator[None]:
        try:
            with self._calls:
                yield
        except requests.ConnectionError as error:
            raise PacsError(
                f"The PACS {self.url} does not answer ({type(error).__name__}). Start it, or check its address."
            ) from error
        except Exception as error:  # the client raises many kinds of errors for invalid answers
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise PacsError(f"The PACS {self.url} could not {action} ({reason}). See its log.") from error

    def all_series(self, modality: str) -> list[dict[str, Any]]:
        """Every series of a modality, as `search` describes it. The list is kept for 10 s."""
        when, series = self._lists.get(modality, (0.0, []))
        if time.monotonic() - when > _LIST_IS_VALID or not when:
            series = self.search(search_filters={"Modality": modality})
            self._lists[modality] = time.monotonic(), series
        return series

    def search(self, **arguments: Any) -> list[dict[str, Any]]:
        """{"uid", "study", "modality", "text", "contrast", "instances"} of each series that matches.

        Takes the arguments of dicomweb_client's search_for_series.
        """
        with self._request("list its series"):
            answer = self._searching.search_for_series(fields=list(_FIELDS), **arguments)
            study = arguments.get("study_instance_uid", "")  # the answer need not repeat it
            return [_describe(pydicom.Dataset.from_json(series), study) for series in answer]

    def studies(self, filters: Mapping[str, str]) -> list[dict[str, str]]:
        """{"uid", "date"} of each study that matches {"StudyDate": "20260101-", ...}, the oldest first."""
        query = "&".join(f"{name}={quote(value, safe='*-')}" for name, value in filters.items())  # some want a bare *
        dates: dict[str, str] = {}
        with self._request("list its studies"):
            while True:
                page = f"{query}&limit={_PAGE}&offset={len(dates)}".lstrip("&")
                headers = {"accept": "application/dicom+json"}
                answer = self._session.get(f"{self.url}/studies?{page}", headers=headers, timeout=(_CONNECT, _SEARCH))
                answer.raise_for_status()
                found = [pydicom.Dataset.from_json(study) for study in (answer.json() if answer.content else [])]
                new = {str(one.StudyInstanceUID): str(one.get("StudyDate", "")) for one in found}
                if new.keys() <= dates.keys():  # the end, or a server that knows no offset
                    break
                dates |= new
        return [{"uid": uid, "date": date} for uid, date in sorted(dates.items(), key=lambda pair: (pair[1], pair[0]))]

    def find(self, uid: str) -> dict[str, Any] | None:
        """The MR series with this UID; None if the PACS has none."""
        for series in self.all_series("MR"):
            if series["uid"] == uid:
                return series
        for series in self.search(search_filters={"SeriesInstanceUID": uid}):
            if series["uid"] == uid and series["modality"] == "MR":
                return series
        return None

    def metadata(self, series: Mapping[str, Any]) -> pydicom.Dataset:
        """The first object of a series, without its voxels."""
        with self._request(f"describe the series {series['uid']}"):
            answer = self._client.retrieve_series_metadata(series["study"], series["uid"])
            return pydicom.Dataset.from_json(answer[0])

    def instances(self, series: Mapping[str, Any]) -> list[pydicom.Dataset]:
        """All objects of a series, at least one."""
        with self._request(f"send the series {series['uid']}"):
            objects: list[pydicom.Dataset] = self._client.retrieve_series(series["study"], series["uid"])
            if not objects:
                raise ValueError("the answer is empty")
            return objects

    def store(self, instance: pydicom.Dataset) -> None:
        """Sends an object by STOW-RS."""
        with self._request("store the object"):
            if self._client.store_instances([instance]).get("FailedSOPSequence"):
                raise ValueError("the object was refused")

    def forget(self, modality: str) -> None:
        """Asks for the list of this modality's series again when it is needed next, as after a new series."""
        self._lists.pop(modality, None)

    def pass_on(self, method: str, resource: str, query: str, headers: Mapping[str, str], content: bytes) -> Any:
        """The answer of the PACS to a viewer's request (requests.Response)."""
        url = f"{self.url}/{resource}" + (f"?{query}" if query else "")
        with self._request(f"answer {method} {resource}"):
            is_search = method == "GET" and resource.endswith(("studies", "series", "instances"))
            seconds = _CONNECT, _SEARCH if is_search else _RETRIEVE
            answer = self._session.request(method, url, headers=headers, data=content or None, timeout=seconds)
            if answer.status_code >= 500:
                raise ValueError(f"status {answer.status_code}")
            return answer


def _session(user: str, password: str, seconds: int) -> requests.Session:
    session: requests.Session = create_session_from_user_pass(user, password) if user else requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _WithTimeout(seconds))
    session.max_redirects = 0  # studies must not go to another server
    return session


def _client(url: str, session: requests.Session) -> DICOMwebClientX:
    client = DICOMwebClientX(url=url, session=session)
    client.set_http_retry_params(retry=False)  # retries would delay the error by half a minute
    return client


class _WithTimeout(HTTPAdapter):
    """Waits at most 10 s for a connection, and some seconds for the next byte."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__()

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or (_CONNECT, self.seconds)
        return super().send(request, *args, **kwargs)


def _describe(series: pydicom.Dataset, study: str = "") -> dict[str, Any]:
    texts = [str(series.get(name, "") or "") for name in _FIELDS[:2]]
    return {
        "uid": str(series.SeriesInstanceUID),
        "study": str(series.get("StudyInstanceUID", study)),
        "instances": int(series.get("NumberOfSeriesRelatedInstances", 0) or 0),
        "modality": str(series.get("Modality", "")),
        "text": next((text for text in texts if text), "no description"),
        "contrast": next((contrast for text in texts if (contrast := contrast_of(text))), None),
    }
