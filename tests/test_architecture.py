"""Design rules as tests: who imports whom, what importing costs, and that the docs name every command."""

import ast
from pathlib import Path

import click
import pytest

import distill.cli
import patchgen.cli

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "manifests": {"patchgen", "distill", "cv2", "torch", "torchvision", "albumentations", "webdataset"},
    "patchgen": {"distill", "torch", "torchvision", "webdataset"},
    "distill": {"patchgen", "cv2", "albumentations"},
}
FILES = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Every module a file imports, at any depth, by its full name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_rules(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    roots = {name.split(".", maxsplit=1)[0] for name in imports(path)}
    assert not roots & FORBIDDEN[package]
    if not {"__main__", "cli"} & {path.stem, path.parent.name}:
        assert not {name for name in imports(path) if "cli" in name.split(".")}


def test_rooms_do_not_import_their_wiring() -> None:
    wiring = {
        "manifests": set(),
        "patchgen": {"build", "pack", "rebuild", "export", "doctor"},
        "distill": {"run", "teach", "label", "measure", "convert", "visualize", "prices", "reproduce"},
    }
    for path in FILES:
        package, *inner = path.relative_to(ROOT).with_suffix("").parts
        if inner[0] in wiring[package] | {"cli", "__main__"}:
            continue
        found = {name for name in imports(path) if name in {f"{package}.{room}" for room in wiring[package]}}
        assert not found, path


def test_files_are_small() -> None:
    assert {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 350} == {}


@pytest.mark.parametrize("group", [patchgen.cli.cli, distill.cli.cli])
def test_the_readme_names_every_command_and_option(group: click.Group) -> None:
    readme = (ROOT / "README.md").read_text()
    program = "patchgen" if group is patchgen.cli.cli else "distill"
    for name, command in group.commands.items():
        assert f"{program} {name}" in readme
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in readme, f"{program} {name} {parameter.opts[0]}"


def test_the_docs_name_every_room() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for package in FORBIDDEN:
        for path in (ROOT / package).glob("*.py"):
            if not path.stem.startswith("__"):
                assert f"`{path.stem}`" in page, path
