"""Test that the code blocks of READING.md run as written. DALI's block is left out: it needs NVIDIA's package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "manifests" / "READING.md").read_text()
BLOCKS = {
    title: block
    for title, block in re.findall(
        r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    if title != "NVIDIA DALI"
}


def test_the_page_has_its_blocks() -> None:
    assert list(BLOCKS) == ["Python", "webdataset", "torch", "Hugging Face datasets", "wids"]
    assert PAGE.count("```python") == len(BLOCKS) + 1


@pytest.mark.parametrize("title", BLOCKS)
def test_a_block_runs(title: str, patchset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in re.findall(r"^import (datasets|wids)", BLOCKS[title], re.MULTILINE):
        pytest.importorskip(package)
    shutil.copytree(patchset_path, tmp_path / "shards")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[title]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
