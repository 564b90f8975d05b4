"""Test the output of both programs: notes, options for fewer or more notes, progress, completion, suggestions."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from manifests.support import console
from tests.conftest import Program, assert_one_line, full_output


def test_quiet_leaves_the_result(run_patchgen: Program, photo_path: Path, tmp_path: Path) -> None:
    command = ["build", "--image", photo_path, "--n", 10, "--workers", 1, "--out"]
    loud = run_patchgen(*command, tmp_path / "a")
    assert loud.out.splitlines()[-1].startswith(f"next: distill train --shards {tmp_path / 'a'} ")
    quiet = run_patchgen(*command, tmp_path / "b", "-q")
    assert quiet.out.splitlines() == loud.out.splitlines()[:-1] and quiet.err == ""
    told = run_patchgen(*command, tmp_path / "b", "--verbose")
    assert told.err == "1 intact shard kept, 0 to build\n"
    told = run_patchgen(*command, tmp_path / "c", "--verbose")
    assert told.err == "0 intact shards kept, 1 to build\n"


def test_verbose_tells_where_an_error_arose(run_patchgen: Program, tmp_path: Path) -> None:
    assert_one_line(run_patchgen("info", tmp_path / "none"), "none: the file cannot be read")
    result = run_patchgen("info", tmp_path / "none", "-v")
    assert result.status == 1 and "Traceback" in result.err and result.err.count("none: the file cannot be read") == 2
    usage = run_patchgen("info", "-v", "--nothing")
    assert_one_line(usage, "No such option", status=2)


def test_a_full_output_is_not_a_full_disk(run_patchgen: Program, photo_path: Path, tmp_path: Path) -> None:
    expected = "patchgen: the output cannot be written: No space left on device; redirect it to another file"
    command = ["build", "--image", photo_path, "--n", 1, "--workers", 1, "--out", tmp_path / "x"]
    for words in (["recipes"], command):
        with full_output():
            result = run_patchgen(*words)
        assert_one_line(result, expected)


def test_a_locale_that_is_not_utf8(tmp_path: Path) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "patchgen", "info", tmp_path / "ü"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (
        result.returncode == 1
        and "the cause may be the locale, which is not UTF-8; then set PYTHONUTF8=1" in result.stderr
    )


@pytest.mark.parametrize("option", ["--out", "--image", "--recipe"])
def test_empty_paths_are_refused(option: str, run_patchgen: Program, photo_path: Path, tmp_path: Path) -> None:
    result = run_patchgen("build", "--image", photo_path, "--n", 1, "--out", tmp_path / "x", option, "")
    assert_one_line(result, f"{option}': the path is empty; give a path", status=2)


def test_a_folder_that_is_a_file(run_patchgen: Program, photo_path: Path) -> None:
    for out in ("/dev/null", "/dev/null/x"):
        result = run_patchgen("build", "--image", photo_path, "--n", 1, "--workers", 1, "--out", out)
        assert_one_line(result, f"{out}: is not a folder, or is inside a file; choose another folder")


@pytest.mark.parametrize(
    ("program", "wrong", "right"),
    [
        ("patchgen", ["biuld"], "'build'"),
        ("patchgen", ["build", "--imge", "x"], "'--image'"),
        ("distill", ["trian"], "'train'"),
        ("distill", ["train", "--shrads", "x"], "'--shards'"),
    ],
)
def test_mistyped_words_get_the_nearest(
    program: str, wrong: list[str], right: str, run_patchgen: Program, run_distill: Program
) -> None:
    call = run_patchgen if program == "patchgen" else run_distill
    assert_one_line(call(*wrong), right, status=2)


@pytest.mark.parametrize("program", ["patchgen", "distill"])
def test_completion_as_the_readme_says(program: str) -> None:
    words = {"COMP_WORDS": f"{program} ", "COMP_CWORD": "1", f"_{program.upper()}_COMPLETE": "bash_complete"}
    code = f"import sys; sys.argv = ['{program}']; from {program}.cli import main; main()"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
    expected = {"patchgen": "verify", "distill": "verify-logits"}[program]
    assert result.returncode == 0 and f"plain,{expected}" in result.stdout.splitlines()


@pytest.mark.parametrize("colors", [True, False])
def test_progress_is_for_terminals_and_obeys_no_color(colors: bool, photo_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "patchgen", "build", "--image", photo_path, "--n", "3000", "--workers", "1"]
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "COLORTERM")}
    environment |= {"TERM": "xterm-256color"} | ({} if colors else {"NO_COLOR": "1"})
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [*command, "--out", tmp_path / "x"], stderr=writer, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(writer)
        seen = b""
        while True:
            try:
                part = os.read(reader, 1 << 16)
            except OSError:  # the program has closed the terminal
                break
            if not part:
                break
            seen += part
    os.close(reader)
    assert process.returncode == 0 and b"patches" in seen and b"/3000" in seen
    assert (b"\x1b[38;5;" in seen or b"\x1b[35m" in seen or b"\x1b[32m" in seen) == colors


def test_a_log_gets_a_line_of_progress_each_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress_bar("samples", 9000) as update:
        for done in range(0, 9000, 1000):
            update(done, "loss 0.5" if done > 4000 else "")
            now += 20
    assert capsys.readouterr().err == "samples: 3,000 of 9,000\nsamples: 6,000 of 9,000, loss 0.5\n"
