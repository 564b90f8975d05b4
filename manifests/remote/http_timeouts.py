"""How long a web server may take: one that says a little now and then, and never comes to an end, holds nobody."""

import http.client
import io
import socket
import time
import urllib.request
from typing import Any

TIMEOUT = 30.0
"""Seconds that a server may say nothing."""
ANSWER_SECONDS = 60.0
"""Seconds until an answer's head is there."""
PACE_BYTES, PACE_SECONDS = 60_000, 60.0
"""Bytes of a body that must come in so many seconds."""


class SlowError(TimeoutError):
    """A server takes too long, though it says something now and then."""


class _Watched(io.RawIOBase):
    """A connection's bytes, until a time."""

    def __init__(self, raw: Any, connection: socket.socket) -> None:
        self._raw, self._connection = raw, connection
        self.end, self.told = time.monotonic() + ANSWER_SECONDS, f"no answer within {ANSWER_SECONDS:g} s"

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of any raw file.

        Raises:
            SlowError: the time is over.
            TimeoutError: nothing came for ``TIMEOUT``.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise SlowError(self.told)
        self._connection.settimeout(min(TIMEOUT, left))
        try:
            return self._raw.readinto(buffer) or 0
        except TimeoutError as error:
            if left < TIMEOUT:
                raise SlowError(self.told) from error
            raise

    def close(self) -> None:
        """Leave the connection."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head must be there in time, and whose body must not come too slowly.

    Of the time that its user takes between two pieces nothing is counted.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._watched = _Watched(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._watched)
        self._due, self._left = 0, 0.0

    def read1(self, n: int = -1) -> bytes:
        """As http.client's; see ``_Watched`` for what it raises."""
        if self._due <= 0:
            self._due, self._left = PACE_BYTES, PACE_SECONDS
        begin = time.monotonic()
        self._watched.end = begin + self._left
        self._watched.told = f"less than {PACE_BYTES} bytes in {PACE_SECONDS:g} s"
        piece = super().read1(n)
        self._left -= time.monotonic() - begin
        self._due -= len(piece)
        return piece


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SafeConnection(http.client.HTTPSConnection):
    response_class = _Response


class PatientHandler(urllib.request.HTTPHandler):
    """As urllib's, for http."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


class SafePatientHandler(urllib.request.HTTPSHandler):
    """As urllib's, for https."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SafeConnection, request)
