"""Test that neither errors nor notes show the secrets of a URL, and which URLs a set may publish."""

from pathlib import Path

import pytest

from manifests.support.redaction import display_url, has_secret, redact
from tests.conftest import Program, assert_one_line

SECRET = "https://bob:hunter2@127.0.0.1:1/set?token=SEKRET"  # noqa: S105 - of no server
SHOWN = "https://127.0.0.1:1/set?…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"No such command '{SECRET}'. See --help", f"No such command '{SHOWN}'. See --help"),
        (f"argument ({SECRET}).", f"argument ({SHOWN})."),
        (f"{SECRET}: not a file", f"{SHOWN}: not a file"),
        ("https:/bob:hunter2@host/x?token=SEKRET: no file", "https:/host/x?…: no file"),
        ("key https://bob:hun is unknown", "key https://bob:… is unknown"),
        ("HTTPS://bob:hun'ter2@host/x", "HTTPS://host/x"),
        ("hf://datasets/u:SEKRET@x/y", "hf://datasets/…@x/y"),
        (
            "https://[::1]:80/set and s3://lab/set, tcp://HOST:PORT",
            "https://[::1]:80/set and s3://lab/set, tcp://HOST:PORT",
        ),
        ("memory://host/set?…/manifest.json: gone", "memory://host/set?…/manifest.json: gone"),
        ("https://…@host/set: bad", "https://…@host/set: bad"),
    ],
)
def test_urls_in_messages(text: str, shown: str) -> None:
    assert redact(text) == shown == redact(shown)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("patchgen", [SECRET]),
        ("patchgen", ["verify", SECRET, SECRET]),
        ("patchgen", ["build", "--image", "p", "--out", "o", "--n", SECRET]),
        ("patchgen", ["build", "--image", "p", "--out", "o", "--n", 1, "--scheduler", SECRET]),
        ("distill", ["reproduce", SECRET]),
        ("distill", ["reproduce", "main", "--input", SECRET]),
        ("distill", ["train", "--shards", "s", "--config", SECRET]),
        ("distill", ["train", "--shards", "s", "--config", "fast-cifar", "--set", SECRET]),
        ("distill", ["train", "--shards", "s", "--config", "fast-cifar", "--device", SECRET]),
        ("distill", ["train-teacher", "--data", "d", "--config", "teacher-cifar10-resnet56", "--seeds", SECRET]),
    ],
)
def test_errors_show_no_secret(
    program: str, words: list[object], run_patchgen: Program, run_distill: Program
) -> None:
    result = (run_patchgen if program == "patchgen" else run_distill)(*words, "-v")
    assert result.status in (1, 2) and "https://127.0.0.1:1/set" in result.err
    assert not any(part in result.out + result.err for part in ("bob", "hunter2", "SEKRET"))


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        "https://bob@host/p.jpg",
        "https://host/p?X-Amz-Signature=a",
        "https://host/p?id=3&api_key=a",
        "https://host/p?%74oken=a",
        "https://host/p#access_token=a",
        "host/my p.jpg?sig=a",
        f"a photo of Bob ({SECRET})",
    ],
)
def test_no_set_publishes_a_secret(url: str, photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    assert has_secret(url)
    out = tmp_path / "out"
    for command in (["build", "--image", photo_path, "--n", 1], ["pack", photo_path.parent]):
        for option in ("--url", "--attribution"):
            result = run_patchgen(*command, "--out", out, option, url)
            assert_one_line(result, f"{option}: the URL contains", "give the public address")
            assert "hunter2" not in result.err and not (out / "manifest.json").exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://host/p.jpg?id=3&monkey=1",
        "https://www.flickr.com/photos/1@N00/2",
        "Bob <bob@host>, https://host:80/",
        "",
    ],
)
def test_public_addresses_may_be_published(url: str) -> None:
    assert not has_secret(url) and display_url("https://host/x?y") == "https://host/x?…"
