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

    If `limit_concurrency` connections are open, a new one replaces the one that has waited longest for its header, so
    that silent clients do not shut out others.
    """

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        waiting = [other for other in self.connections if getattr(other, "_header_timer", None)]
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency - 1 and waiting:
            min(waiting, key=lambda other: other._header_timer.when())._give_up()
        super().connection_made(transport)
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        """A client sends bytes."""
        super().data_received(data)
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client goes."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_header(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # the server is at work on a request
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
