"""The checks that every request passes first: host, origin, token, size and pace."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "brainmri_label"
_OPEN = ("/auth/", "/auth/token")  # need no token: a viewer asks whether it must log in, and logs in
_LARGEST_LOGIN = 2**16  # bytes, before a client has shown its token
_LARGEST_JSON = 2**20  # bytes; only forms with files, and objects for a PACS, may be larger
_CLOSE = {"connection": "close"}
_PATIENCE, _SLOWEST = 30, 10_000  # s, and bytes per s: a body must keep up with this pace after these seconds


class Guard:
    """An ASGI app around another app.

    - If the server listens on loopback, the Host header must name it (against DNS rebinding). Starlette's
      TrustedHostMiddleware makes the same check, but its answer does not say which address to open.
    - A page must come from the server itself or from one of the origins.
    - With a token, every request must carry it: `Authorization: Bearer TOKEN`, or a cookie that a browser gets by
      opening any page with ?token=TOKEN once.
    - A body that is too large or too slow, or a form that is cut short, is refused.

    Args:
        app: the app.
        host: the address that the server listens on.
        token: "" if none is needed.
        origins: further origins, as http://viewer.example:3000.
        largest: the size of the largest accepted form with files, in bytes. Other bodies may have 1 MB, a login 64 kB.
        public_url: the address of a proxy in front; "" if there is none.
    """

    def __init__(
        self, app: ASGIApp, host: str, token: str, origins: Sequence[str], largest: int, public_url: str = ""
    ) -> None:
        self.app, self.token, self.origins, self.largest = app, token, tuple(origins), largest
        names = {"127.0.0.1", "localhost", "::1", host, _hostname(_netloc(public_url))} - {""}
        self.hosts = names if is_loopback(host) else set()
        self.is_https = public_url.startswith("https://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request itself, or passes it on to the app."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if answer := self._refusal(scope, headers):
            await answer(scope, receive, send)
            return
        await self._limited(scope, headers, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Any:
        host = headers.get("host", "")
        if self.hosts and _hostname(host) not in self.hosts:
            return _answer(403, f"{host!r} is not the address of this server. Open it as 127.0.0.1 or localhost.")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and (not host or _netloc(origin) != host):
            return _answer(403, f"Pages of {origin!r} may not use this server. Start it with --origins {origin}")
        named = origin in self.origins
        if (scope["method"] == "OPTIONS" and named) or not self.token or scope["path"] in _OPEN:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and "token" in query and self._is_token(query.pop("token")[0]):
            rest = urlencode(query, doseq=True)
            # only one slash at the front: //name would lead a browser to another server
            page = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), status_code=303)
            page.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", secure=self.is_https)
            return page
        given = headers.get("authorization", "")
        cookie = cookie_parser(headers.get("cookie", "")).get(
            COOKIE, ""
        )  # the header may hold cookies of other apps on this machine
        if self._is_token(given.removeprefix("Bearer ")) or self._is_token(cookie):
            return None
        return _answer(
            401, "This server needs its token. Send it as 'Authorization: Bearer TOKEN', or open ?token=TOKEN once."
        )

    def _is_token(self, given: str) -> bool:
        return bool(self.token) and hmac.compare_digest(given.encode(), self.token.encode())

    async def _limited(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        length = headers.get("content-length", "0")
        largest = self._largest(scope["path"], headers.get("content-type", ""))
        option = " (--largest_upload_mb)" if largest == self.largest else ""
        too_large = f"The request is too large. The limit here is {largest / 2**20:g} MB{option}."
        if not length.isdecimal() or int(length) > largest:
            await _answer(413, too_large)(scope, receive, send)
            return
        boundary = re.search(r'multipart/form-data;.*boundary="?([^";,]+)', headers.get("content-type", ""))
        end = f"--{boundary[1]}--".encode() if boundary else b""
        seen, tail, complete, waited = 0, b"", False, 0.0

        async def checked() -> Message:
            nonlocal seen, tail, complete, waited
            if complete:
                return await receive()  # waits until the client goes
            start = time.monotonic()  # only the client's own time counts, not that in a queue of this server
            try:
                message = await asyncio.wait_for(receive(), _PATIENCE + seen / _SLOWEST - waited)
            except TimeoutError as error:
                raise HTTPException(408, "The request came too slowly. Send it again.", _CLOSE) from error
            waited += time.monotonic() - start
            complete = not message.get("more_body")
            seen += len(message.get("body", b""))
            tail = (tail + message.get("body", b""))[-1024:]
            if seen > largest:
                raise HTTPException(413, too_large)
            if message["type"] == "http.request" and complete and end not in tail:
                raise HTTPException(400, "The form is cut short. Send it again.")
            return message

        await self.app(scope, checked, send)

    def _largest(self, path: str, content_type: str) -> int:
        if path in _OPEN:
            return _LARGEST_LOGIN
        with_files = content_type.startswith("multipart/form-data") or path.startswith("/proxy/dicom/")
        return self.largest if with_files else min(self.largest, _LARGEST_JSON)


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _answer(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status_code=status, headers=_CLOSE)
