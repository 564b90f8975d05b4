"""Test the design rules: imports, and sizes of files, functions and folders."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "manifests": {"patchgen", "distill", "cv2", "torch", "torchvision", "albumentations", "webdataset"},
    "patchgen": {"distill", "torch", "torchvision", "webdataset"},
    "distill": {"patchgen", "cv2", "albumentations"},
}
LAYERS = {
    "manifests": (
        *("remote", "verify", "verify_shard", "diff", "export", "crop_outlines", "patchset"),
        *("foreign", "format", "untrusted", "limits", "support", "errors"),
    ),
    "patchgen": (
        *("__main__", "cli", "api", "patches", "arguments", "doctor", "preview", "pipeline", "recipe", "recipes"),
        *("sources", "pixels", "export", "limits", "errors"),
    ),
    "distill": (
        *("__main__", "cli", "api", "commands", "tables", "report", "training", "config", "evaluation", "targets"),
        *("optim", "data", "augment", "runtime", "weights", "models", "loggers", "callbacks", "user_code", "errors"),
    ),
}
"""Folders and files of a package, from top to bottom. Each may import only entries after itself."""
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in FORBIDDEN
    for path in sorted((ROOT / package).rglob("*.py"))
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS, MAX_FOLDER_FILES = 300, 60, 7, 13


def imports(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def project_imports(module: str) -> set[str]:
    """Return the modules of this project that a module imports."""
    found = imports(FILES[module])
    return {name if name in FILES else name.rpartition(".")[0] for name in found} & FILES.keys()


@pytest.mark.parametrize("module", FILES)
def test_packages_import_only_what_they_may(module: str) -> None:
    package = module.partition(".")[0]
    assert not {name.partition(".")[0] for name in imports(FILES[module])} & FORBIDDEN[package]


@pytest.mark.parametrize("module", [name for name in FILES if "." in name])
def test_imports_go_downward(module: str) -> None:
    package, layer = module.split(".")[:2]
    layers = LAYERS[package]
    for imported in project_imports(module):
        other, _, rest = imported.partition(".")
        if other == package and rest:
            assert layers.index(layer) <= layers.index(rest.partition(".")[0]), f"{module} imports {imported}"


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter({module: project_imports(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_folders_and_files_are_small() -> None:
    assert [name for name, path in FILES.items() if len(path.read_text().splitlines()) > MAX_FILE_LINES] == []
    folders = {path for package in FORBIDDEN for path in (ROOT / package).rglob("*") if path.is_dir()}
    for folder in [ROOT / "manifests", ROOT / "patchgen", ROOT / "distill", *folders]:
        if folder.name != "__pycache__":
            files = [path.name for path in folder.iterdir() if path.suffix == ".py"]
            assert len(files) <= MAX_FOLDER_FILES, f"{folder}: {len(files)} files"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_are_small() -> None:
    for module, path in FILES.items():
        for function in functions(path):
            length = (function.end_lineno or 0) - function.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{module}.{function.name}: {length} lines"
            arguments = function.args
            count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
            allowed = count <= MAX_PARAMETERS or ".cli." in module or module == "distill.api"
            assert allowed, f"{module}.{function.name}: {count} parameters"


def test_the_architecture_page_names_every_folder() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for package, layers in LAYERS.items():
        for layer in layers:
            if (ROOT / package / layer).is_dir():
                assert f"`{package}/{layer}/`" in page, f"{package}/{layer}/"
