"""Test that the programs refuse every hostile case with one line, and change no file."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distill.cli
import patchgen.cli
from tests.hostile.case import ENTRANCES, Case, listing
from tests.hostile.corpus import CASES
from tests.hostile.opening import main as open_set
from tests.hostile.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        make_world(folder)
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copy the good files, make the copy the current folder, and yield its path."""
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    yield folder
    monkeypatch.undo()
    shutil.rmtree(folder)


def enter(name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command of ``ENTRANCES`` in this process, and return its exit status."""
    program, *arguments = ENTRANCES[name]
    if program == "python":
        return open_set(arguments[-1])
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        (patchgen.cli.main if program == "patchgen" else distill.cli.main)()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_good_files_are_accepted(
    entrance: str, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every command accepts the good files. Otherwise a refusal of a hostile file would prove nothing."""
    assert enter(entrance, monkeypatch) == 0, capfd.readouterr()


IN_TURN = [(case, case.entrances[number % len(case.entrances)]) for number, case in enumerate(CASES)]
"""Each case with one of its commands. ``scripts/stress/hostile.py`` runs all commands of each case."""


@pytest.mark.parametrize(("case", "entrance"), IN_TURN, ids=[f"{case.name}, {by}" for case, by in IN_TURN])
def test_hostile(
    case: Case, entrance: str, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    case.make(here)
    before = listing(here)
    capfd.readouterr()
    status = enter(entrance, monkeypatch)
    out, err = capfd.readouterr()
    assert status == 1, (status, out, err)
    assert len(err.strip().splitlines()) == 1 and len(err) < 2000, err
    assert any(part in out + err for part in case.said.split("|")), (out, err)
    assert err.strip().isprintable() and "\x1b" not in out, (out, err)
    assert listing(here) == before


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 100
