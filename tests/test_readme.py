"""Every command in README.md is run, in its order and as it stands, in a folder with what its reader brings.

Runs are cut to a few steps, sets to a hundredth, networks are asked only briefly what they want to see, and tables
are priced alone (``test_reproduce`` runs one); nothing else is changed.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distill.commands.visualize
from distill.augment import normalize
from distill.config.schema import TrainConfig
from distill.models import build_model
from distill.weights.files import save_weights
from tests.conftest import Program, make_photo, write_image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
ELSEWHERE = ("scripts/", "source ", "cp ", "pip ", "eval ", "sha256sum ", "torchrun ")
"""CI runs ``scripts/test``, which installs; ``test_terminal`` completes; ``test_making`` and others sum;
``test_torchrun`` launches."""


def commands() -> list[str]:
    """Those in blocks, and those in a line that name a file or an option; not those with a PLACEHOLDER."""
    found = []
    for block, line in re.findall(
        r"^```sh\n(.*?)^```|`((?:patchgen|distill) [^`]+)`", README, re.MULTILINE | re.DOTALL
    ):
        for each in (block or " ".join(line.split())).replace("\\\n", " ").splitlines():
            command = each.split(" #")[0].strip()
            words = command.split()
            placeholders = [word for word in words[1:] if word.isupper() or "…" in word]
            if len(words) > (1 if block else 2) and not placeholders and not command.startswith(ELSEWHERE):
                found.append(command)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo, a teacher, another lab's, and CIFAR-10 in miniature, which the first teacher knows by heart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for name in ("photo.jpg", "animals.jpg"):
        write_image(tmp_path / name, make_photo(400, 300))
    torch.manual_seed(0)
    model = build_model("resnet56", 10)
    model.train()
    model(torch.randn(64, 3, 32, 32))  # gives the batch norms statistics of their own
    model.eval()
    save_weights(tmp_path / "resnet56.safetensors", model, arch="resnet56", num_classes=10, mean=MEAN, std=STD)
    foreign = build_model("resnet56-b", 10).state_dict()
    names = {name: name.replace("shortcut", "downsample").replace("linear", "fc") for name in foreign}
    torch.save({names[name]: value for name, value in foreign.items()}, tmp_path / "cifar10_resnet56.pt")
    data = tmp_path / "cifar-10-batches-bin"
    data.mkdir()
    rng = np.random.default_rng(0)
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        pixels = rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
        x = normalize(torch.from_numpy(pixels).permute(0, 2, 3, 1), MEAN, STD)
        with torch.no_grad():
            labels = model(x).argmax(dim=1).numpy().astype(np.uint8)
        (data / f"{name}.bin").write_bytes(np.column_stack([labels, pixels.reshape(60, -1)]).tobytes())
    return tmp_path


def test_every_command_of_the_readme(folder: Path, run_distill: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    original = distill.commands.visualize.excite

    def briefly(*arguments: Any, **options: Any) -> torch.Tensor:
        return original(*arguments, **options | {"steps": 2})

    monkeypatch.setattr(distill.commands.visualize, "excite", briefly)
    monkeypatch.setattr(TrainConfig, "steps", lambda self, n, batch_size: 3)
    names = set()
    for command in commands():
        program, *words = shlex.split(re.sub(r"(--n \d+)00\b", r"\1", command))
        names.add((program, words[0]))
        words += ["--estimate"] if words[0] == "reproduce" and "--estimate" not in words else []
        if program == "distill":
            ran = run_distill(*words)
            status, said = ran.status, ran.err
        else:
            module = ["-m", "patchgen"] if program == "patchgen" else []
            result = subprocess.run([sys.executable, *module, *words], capture_output=True, check=False)
            status, said = result.returncode, result.stderr.decode()
        assert status == 0, (command, said)
        if words[0] == "build" and "shards/" in words:
            shutil.copy("shards/manifest.json", "manifest.json")
        if "run/" in words and words[0] == "train":
            shutil.copytree("run", "runs/one")
            shutil.copytree("run", "runs/two")
    assert len(names) >= 15 and (folder / "all.html").exists(), names


def test_the_commands_are_found() -> None:
    found = commands()
    assert len(found) >= 20
    assert "patchgen build --image photo.jpg --n 1000000 --out shards/" in found
    assert "python scripts/demo_world.py --out world/" in found
    assert "patchgen preview shards/ --out sheet.png --image photo.jpg" in found
    assert not [command for command in found if "DATA" in command]
