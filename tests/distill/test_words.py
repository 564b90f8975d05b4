"""What programs print: files by the names a user gave them, and counts of one."""

from pathlib import Path

import pytest

from tests.conftest import Program, assert_one_line


@pytest.mark.parametrize("command", ["train", "teacher", "label"])
@pytest.mark.parametrize("name", ["y.yaml", "sub/y.yaml", "y.yml", "y"])
def test_a_config_is_called_as_it_was_given(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patchset_path: Path,
    run_distill: Program,
    command: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("optim: [1")
    source = ("--data", patchset_path) if command == "teacher" else ("--shards", patchset_path)
    assert_one_line(run_distill(command, *source, "--config", name, "--out", "run"), f"distill: config {name}: ")


def test_a_table_is_called_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_distill: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("rows: [")
    assert_one_line(run_distill("reproduce", "mine.yaml"), "distill: table mine.yaml: ")
