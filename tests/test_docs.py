"""Test that all commands and Python blocks of README.md and docs/ run, and that links and reference.md are correct.

Commands run in the order of ``PAGES``, exactly as written, in a folder with the files that a reader has. The test
changes only four things. Runs have a few steps. Sets have a hundredth of their patches. ``visualize`` makes two
steps. ``reproduce`` only estimates (``test_reproduce`` runs a table).
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

import distill.cli
import distill.commands.visualize
import distill.training.cost_estimate
import patchgen.cli
from distill.augment import normalize
from distill.config.schema import TrainConfig
from distill.models import build_model
from distill.weights.files import save_weights
from scripts.make_reference import reference
from tests.conftest import Program, make_photo, write_image

ROOT = Path(__file__).parent.parent
PAGES = (
    *("README.md", "docs/patchgen.md", "docs/recipes.md", "docs/image-data.md", "docs/publishing.md"),
    *("docs/distill.md", "docs/losses-and-augmentation.md", "docs/teacher-logits.md", "docs/foreign-checkpoints.md"),
    *(
        "docs/distributed.md",
        "docs/reproduce.md",
        "docs/python.md",
        "docs/own-networks.md",
        "docs/bring-your-own.md",
        "docs/limits.md",
    ),
)
"""The order matters: a page may use files that the commands of earlier pages wrote."""
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
REFERENCE = "docs/reference.md"
GROUPS = {"patchgen": patchgen.cli.cli, "distill": distill.cli.cli}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NOT_RUN = ("scripts/", "source ", "cp ", "pip ", "sha256sum ", "torchrun ")
"""First words of commands that are not run here. CI runs ``scripts/test``; other tests run the last two."""


def commands() -> list[str]:
    """Return the commands of shell blocks and inline code, without comments, duplicates and PLACEHOLDERS.

    Inline code is a command if it names a program, a command and an argument.
    """
    found: dict[str, None] = {}
    for text in TEXTS.values():
        for block, line in re.findall(
            r"^```sh\n(.*?)^```|`((?:patchgen|distill) [^`]+)`", text, re.MULTILINE | re.DOTALL
        ):
            for each in (block or " ".join(line.split())).replace("\\\n", " ").splitlines():
                command = " ".join(each.split(" #")[0].split())
                words = command.split()
                placeholders = [word for word in words[1:] if word.isupper() or "…" in word]
                if len(words) > (1 if block else 2) and not placeholders and not command.startswith(NOT_RUN):
                    found[command] = None
    return list(found)


def files_of_pages() -> list[tuple[str, str]]:
    """Return names and texts of the files on the pages: blocks whose first line is a comment with the name."""
    pattern = r"^```\w+\n# (\w+\.(?:py|yaml))\n(.*?)^```"
    return [found for text in TEXTS.values() for found in re.findall(pattern, text, re.MULTILINE | re.DOTALL)]


def python_blocks() -> list[tuple[str, str]]:
    """Return pairs of a page's name and a block of Python code."""
    return [
        (page, block)
        for page, text in TEXTS.items()
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make photos, a teacher, a foreign checkpoint, and a small CIFAR-10 labelled by the teacher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for name, text in files_of_pages():
        (tmp_path / name).write_text(text)
    for name in ("photo.jpg", "animals.jpg"):
        write_image(tmp_path / name, make_photo(400, 300))
    torch.manual_seed(0)
    model = build_model("resnet56", 10)
    model.train()
    model(torch.randn(64, 3, 32, 32))  # sets the statistics of the batch normalization layers
    model.eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 60, 3, 32, 32), dtype=np.uint8)
    x = normalize(torch.from_numpy(images).flatten(0, 1).permute(0, 2, 3, 1), MEAN, STD)
    with torch.no_grad():
        model.linear.bias -= model(x).mean(dim=0)  # all classes occur; equal labels lead to slow denormal numbers
        labels = model(x).argmax(dim=1).numpy().astype(np.uint8).reshape(6, 60, 1)
    assert len(np.unique(labels)) == 10
    save_weights(tmp_path / "resnet56.safetensors", model, arch="resnet56", num_classes=10, mean=MEAN, std=STD)
    foreign = build_model("resnet56-b", 10).state_dict()
    names = {name: name.replace("shortcut", "downsample").replace("linear", "fc") for name in foreign}
    torch.save({names[name]: value for name, value in foreign.items()}, tmp_path / "cifar10_resnet56.pt")
    data = tmp_path / "cifar-10-batches-bin"
    data.mkdir()
    for number, name in enumerate(("test_batch", *(f"data_batch_{number}" for number in range(1, 6)))):
        records = np.concatenate([labels[number], images[number].reshape(60, -1)], axis=1)
        (data / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path


def small_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace CLIP's weights and tokenizer, which cannot be downloaded here, by small random ones."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 97, "eos_token_id": 98}
    vision = sizes | {"image_size": 224, "patch_size": 56}
    config = transformers.CLIPConfig(text_config=sizes | tokens, vision_config=vision, projection_dim=8)

    def tokenize(prompts: list[str], **options: Any) -> dict[str, torch.Tensor]:
        rows = [[97, *(ord(letter) % 90 for letter in prompt[-9:]), 98] for prompt in prompts]
        return {"input_ids": torch.tensor(rows)}

    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", lambda name: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: tokenize)


def test_every_command_and_python_block(
    folder: Path, run_distill: Program, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = distill.commands.visualize.excite

    def two_steps(*arguments: Any, **options: Any) -> torch.Tensor:
        return original(*arguments, **options | {"steps": 2})

    monkeypatch.setattr(distill.commands.visualize, "excite", two_steps)

    def few_steps(self: TrainConfig, n: int, batch_size: int) -> int:
        if self.samples == 3_000_000:  # a run that is extended
            return 3
        return 1 if batch_size >= 512 else 2

    monkeypatch.setattr(TrainConfig, "steps", few_steps)
    monkeypatch.setattr(distill.training.cost_estimate, "ENOUGH_SECONDS", 0)
    monkeypatch.setitem(distill.training.cost_estimate.MAX_PIXELS, "cpu", 16 * 32**2)
    small_clip(monkeypatch)
    names = set()
    for command in commands():
        program, *words = shlex.split(re.sub(r"(--n \d+)00\b", r"\1", command))
        names.add((program, words[0]))
        words += ["--estimate"] if words[0] == "reproduce" and "--estimate" not in words else []
        if program in GROUPS:
            ran = (run_distill if program == "distill" else run_patchgen)(*words)
            status, said = ran.status, ran.err
        else:
            result = subprocess.run([sys.executable, *words], capture_output=True, check=False)
            status, said = result.returncode, result.stderr.decode()
            assert "make_crops" not in command or (result.stdout.count(b"\n"), said) == (1, "")  # no bar in a pipe
        assert status == 0, (command, said)
        if words[0] == "build" and "shards/" in words:
            shutil.copy("shards/manifest.json", "manifest.json")
        if "run/" in words and words[0] == "train":
            shutil.copytree("run", "runs/one")
            shutil.copytree("run", "runs/two")
    assert len(names) >= 15 and (folder / "all.html").exists(), names
    for page, block in python_blocks():
        exec(compile(block, f"<{page}>", "exec"), {})  # noqa: S102 - our own pages


def test_the_commands_are_found() -> None:
    found = commands()
    assert len(found) >= 20 and len(python_blocks()) == 19
    assert "patchgen build --image photo.jpg --n 1000000 --out shards/" in found
    assert "python scripts/demo_files/make_crops.py --out crops/" in found
    assert "patchgen preview shards/ --out sheet.png --image photo.jpg" in found
    assert not [command for command in found if "DATA" in command]


def test_the_manual_is_complete_and_small() -> None:
    files = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    assert files == sorted([*(page for page in PAGES if page.startswith("docs/")), REFERENCE]) and len(files) <= 15
    assert (ROOT / "README.md").stat().st_size <= 10_240
    assert not [page for page in files if f"({page})" not in TEXTS["README.md"]]


def test_the_reference_is_current() -> None:
    assert (ROOT / REFERENCE).read_text() == reference(), "run: python scripts/make_reference.py"


@pytest.mark.parametrize("program", GROUPS)
def test_the_manual_names_every_command_and_option(program: str) -> None:
    manual, page = "\n".join(TEXTS.values()), (ROOT / REFERENCE).read_text()
    for name, command in GROUPS[program].commands.items():
        assert f"{program} {name}" in manual
        section = page.split(f"### {program} {name}\n")[1].split("\n#")[0]
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.expose_value:
                assert f"`{parameter.opts[0]}`" in section, f"{program} {name} {parameter.opts[0]}"


@pytest.mark.parametrize("page", [*PAGES, REFERENCE, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target
