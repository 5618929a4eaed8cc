"""HTTP connections of uvicorn that end when a client sends no whole header. uvicorn itself waits without a limit."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10  # for the header of a request, from its first byte or from the start of the connection
MOST = 400  # connections
_OTHER_FILES = 100  # of the server: weights, scans, logs, the database of a browser's page


class TimedProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for headers.

    If nine tenths of `limit_concurrency` are open, a new one replaces one whose client has not sent a whole request and
    was silent for longest, so that silent clients do not shut out others.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _heard = 0.0  # the loop's time of the client's last bytes

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        if self.limit_concurrency and len(self.connections) >= 0.9 * self.limit_concurrency:
            waiting = [other for other in self.connections if isinstance(other, TimedProtocol) and other._is_waiting()]
            if waiting:
                min(waiting, key=lambda other: other._heard)._give_up()
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        """A client sends bytes."""
        self._heard = self.loop.time()
        super().data_received(data)
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client goes."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_waiting(self) -> bool:
        """Whether the client has not sent a whole request."""
        return self.cycle is None or self.cycle.response_complete or bool(self.cycle.more_body)

    def _wait_for_header(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # the guard limits the time of its body
            self._stop_waiting()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)  # now, because the loop tells of the end later
        self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def most_connections() -> int:
    """How many connections the server may hold: MOST, or less where it may open few files.

    Raises the limit of open files to what the system allows this process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(16, min(MOST, (soft - _OTHER_FILES) // 2))
    return MOST
