"""Helpers that open a page in headless Chromium and return its content, console lines and network requests."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
OPTIONS = (
    *("--headless=new", "--disable-gpu", "--dump-dom", "--enable-logging=stderr", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *("--disable-extensions", "--allow-file-access-from-files", "--virtual-time-budget=5000"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """The result of opening a page. ``dom`` is the loaded page. ``requests`` are the URLs that the page requested."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(page: Path, folder: Path) -> Visit:
    """Open a page in the browser. The browser writes its own files into ``folder``."""
    log = folder / "net.json"
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # the sandbox does not work for root
    command = [str(CHROMIUM), *OPTIONS, *sandbox, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    result = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Visit(dom=result.stdout, console=console, requests=_requests(log.read_text()))


def _requests(log: str) -> list[str]:
    """Return the URLs that a page requested. Requests of the browser itself have no origin and are left out."""
    try:
        value = json.loads(log)
    except ValueError:  # the browser ended before the log was complete
        value = json.loads(log.rstrip().rstrip(",") + "]}")
    asked = [event["params"] for event in value["events"] if "initiator" in event.get("params", {})]
    return [each["url"] for each in asked if each["initiator"] != "not an origin" and "url" in each]


class _Figures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._key: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._key = dict(attributes).get("data-figure")

    def handle_data(self, data: str) -> None:
        if self._key is not None:
            self.found.setdefault(self._key, []).append(data.strip())
            self._key = None


def figures(html: str) -> dict[str, list[str]]:
    """Return the values of ``summary.json`` that a page shows, by key."""
    parser = _Figures()
    parser.feed(html)
    return parser.found


def width_needed(page: Path, width: int, folder: Path) -> int:
    """Return the width in pixels that a page needs on a screen of ``width`` pixels."""
    frame = folder / f"frame{width}.html"
    script = "document.title = this.contentDocument.documentElement.scrollWidth"
    source = json.dumps(page.as_uri())
    frame.write_text(
        f'<iframe src={source} style="width:{width}px;height:800px;border:0" onload="{script}"></iframe>'
    )
    return int(re.findall(r"<title>(\d+)</title>", visit(frame, folder).dom)[0])
