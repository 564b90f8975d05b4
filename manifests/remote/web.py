"""Files of a set on a web server, read with the standard library alone."""

import base64
import contextlib
import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from manifests.errors import PassingError, PatchSetError
from manifests.remote import http_timeouts
from manifests.remote.urls import WEB_SCHEMES, Answer, shown, trimmed

MAX_REDIRECTS = 5
MAX_AFTER = 60.0
"""Seconds that a busy server may tell us to stay away; one that says more is asked again after these."""
_BLOCK = 1 << 17
_KEPT = "/:@!$&'()*+,;=~"
_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_NOW = (408, 425, 429, 500, 502, 503, 504)
_BUSY = (429, 503)
_NO_SUCH_RANGE = 416
_PLAIN = ("", "identity", "aws-chunked")  # the last is a mark that some uploads to S3 leave on plain bytes
_WAYS: tuple[type[Exception], ...] = (OSError, http.client.HTTPException, ValueError)


class WebPlace:
    """A set's folder on a web server; a query, such as a signature, is sent with every file."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        self._authorization = _basic(user) if at else None
        path = _quoted(trimmed(parts.path), _KEPT)
        self._parts = parts._replace(netloc=host, path=path, query=_quoted(parts.query, _KEPT + "?"), fragment="")
        # urllib's own opener would follow redirects to ftp: and read a redirect's body without end.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            http_timeouts.PatientHandler,
            http_timeouts.SafePatientHandler,
            urllib.request.UnknownHandler,
        ):
            self._opener.add_handler(handler())

    def shown(self, name: str = "") -> str:
        """See ``Place``."""
        return shown(self._url(name) if name else urlunsplit(self._parts))

    def _url(self, name: str) -> str:
        return urlunsplit(self._parts._replace(path=f"{self._parts.path}/{name}"))

    def open(self, name: str, start: int) -> Answer:
        """See ``Place``."""
        where = self.shown(name)
        try:
            response = self._ask(self._url(name), start, where)
        except _WAYS as error:
            if isinstance(error, PatchSetError):
                raise
            raise _fault(where, error) from error
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _PLAIN:
            response.close()
            raise PatchSetError(
                f"{where}: comes in the encoding {encoding[:20]!a}, though it was asked for as it is; tell whoever "
                "published the set"
            )
        status = response.status
        if status == _NO_SUCH_RANGE or (
            status == http.HTTPStatus.PARTIAL_CONTENT and not _continues(response, start)
        ):
            response.close()
            if start == 0:
                raise PassingError(f"{where}: answers with a part of the file that was not asked for")
            return self.open(name, 0)
        if status == http.HTTPStatus.PARTIAL_CONTENT:
            return Answer(start=start, total=_total(response), pieces=_pieces(response, where))
        length = response.headers.get("Content-Length", "")
        return Answer(start=0, total=int(length) if _number(length) else None, pieces=_pieces(response, where))

    def _ask(self, url: str, start: int, where: str) -> Any:
        """The response of whom redirects lead to, with status 200, 206 or 416."""
        for _ in range(MAX_REDIRECTS + 1):
            request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - http alone
            request.add_header("User-Agent", "patchset")
            if start:
                request.add_header("Range", f"bytes={start}-")
            if self._authorization and urlsplit(url)[:2] == self._parts[:2]:
                request.add_header("Authorization", self._authorization)
            response = self._opener.open(request, timeout=http_timeouts.TIMEOUT)
            if response is None:
                raise PatchSetError(f"{where}: nothing here can ask for it; give an http or https URL")
            if response.status in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT, _NO_SUCH_RANGE):
                return response
            with contextlib.closing(response):
                if response.status not in _REDIRECTS:
                    raise _refusal(where, response)
                url = _redirected(url, response.headers.get("Location", ""), where)
        raise PatchSetError(f"{where}: is redirected more than {MAX_REDIRECTS} times; give the URL it ends at")


def _basic(user: str) -> str:
    user, _, password = user.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _quoted(text: str, kept: str) -> str:
    """A part of a URL with spaces and other letters written out; what is written out already stays."""
    return "".join(
        part if re.fullmatch(r"%[0-9A-Fa-f]{2}", part) else quote(part, safe=kept)
        for part in re.split(r"(%[0-9A-Fa-f]{2})", text)
    )


def _redirected(url: str, location: str, where: str) -> str:
    target = urljoin(url, location)
    old, new = urlsplit(url).scheme, urlsplit(target).scheme
    if not location or new not in WEB_SCHEMES or (old, new) == ("https", "http"):
        raise PatchSetError(
            f"{where}: redirects from {old}: to {new + ':' if location else 'nowhere'}, which is not followed; "
            "ask whoever published the set for its https URL"
        )
    parts = urlsplit(target)
    return urlunsplit(parts._replace(path=_quoted(parts.path, _KEPT), query=_quoted(parts.query, _KEPT + "?")))


def _refusal(where: str, response: Any) -> PatchSetError:
    status = response.status
    said = f"{where}: the server answers {status} {response.reason[:60]}".rstrip()
    if status in _NOT_NOW:
        told = response.headers.get("Retry-After", "").strip()
        after = min(float(told), MAX_AFTER) if _number(told) else 0.0
        return PassingError(f"{said}; try again later", after, busy=status in _BUSY)
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return PatchSetError(f"{said}; you may not read it, or a signature has expired: get its URL anew")
    return PatchSetError(f"{said}; check the URL, or ask whoever published the set")


def _fault(where: str, error: Exception) -> PatchSetError:
    """What went wrong on the way, and whether it may pass."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return PatchSetError(f"{where}: there is no host of this name; check the URL")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return PatchSetError(f"{where}: its certificate is not good: {cause.verify_message}; check the URL")
    if isinstance(cause, (http.client.InvalidURL, UnicodeError, OverflowError)) or type(cause) is ValueError:
        return PatchSetError(f"{where}: is no URL that can be asked; check it")
    if isinstance(cause, http_timeouts.SlowError):
        return PassingError(f"{where}: the server is too slow: {cause}; try again later")
    if isinstance(cause, TimeoutError):
        return PassingError(f"{where}: the server said nothing for {http_timeouts.TIMEOUT:g} s; try again later")
    said = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return PassingError(f"{where}: {' '.join(said.split())[:200]}; try again later")


def _pieces(response: Any, where: str) -> Iterator[bytes]:
    with contextlib.closing(response):
        while True:
            try:
                piece = response.read1(_BLOCK)
            except _WAYS as error:
                raise _fault(where, error) from error
            if not piece:
                return
            yield piece


_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def _continues(response: Any, start: int) -> bool:
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return match is not None and int(match[1]) == start


def _total(response: Any) -> int | None:
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return int(match[3]) if match is not None and match[3] != "*" else None


def _number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None
