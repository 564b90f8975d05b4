"""Test that help, completion and usage errors load no library except click.

``scripts/bench_startup.py`` measures the time that these commands need.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import click
import pytest

import distill.cli
import manifests
import patchgen
import patchgen.cli

GROUPS = {"patchgen": patchgen.cli.cli, "distill": distill.cli.cli}
HEAVY = (
    *("numpy", "pyarrow", "pydantic", "torch", "torchvision", "cv2", "albumentations", "yaml", "PIL", "rich"),
    *("webdataset", "fsspec", "aiohttp", "matplotlib", "safetensors", "distributed", "jinja2", "scipy", "sklearn"),
)
CALLS = """
import contextlib, importlib, io, json, os, sys
program, calls, heavy = json.load(sys.stdin)
main = importlib.import_module(f"{program}.__main__").main
answers = []
for line, environment in calls:
    sys.argv, status = [program, *line], 0
    os.environ.update(environment)
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    answers.append([line, environment, err.getvalue(), status, sorted(set(heavy) & set(sys.modules))])
print(json.dumps(answers))
"""
"""A script that calls a program with several command lines. It prints status and loaded modules of each call."""

Call = tuple[list[str], dict[str, str]]


def require_light(program: str, calls: list[Call], status: int, allowed: frozenset[str] = frozenset()) -> None:
    """Check that each call ends with ``status`` and loads no heavy module except those ``allowed``."""
    question = json.dumps([program, calls, HEAVY])
    run = subprocess.run([sys.executable, "-c", CALLS], input=question, stdout=subprocess.PIPE, text=True, check=True)
    answers = json.loads(run.stdout)
    assert len(answers) == len(calls)
    for *call, ended, loaded in answers:
        assert ended == status and set(loaded) <= allowed, (call, ended, loaded)


def valued_options(command: click.Command) -> Iterator[str]:
    """Yield the options of a command that need a value."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            yield parameter.opts[0]


@pytest.mark.parametrize("program", GROUPS)
def test_help_loads_nothing_heavy(program: str) -> None:
    lines = [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in GROUPS[program].commands)]
    require_light(program, [(line, {}) for line in lines], 0)


@pytest.mark.parametrize("program", GROUPS)
def test_completion_loads_nothing_heavy(program: str) -> None:
    variable = f"_{program.upper()}_COMPLETE"
    calls: list[Call] = [([], {variable: "bash_source"})]
    for name, command in GROUPS[program].commands.items():
        for words in ([""], ["-"], *([option, ""] for option in valued_options(command))):
            typed = {"COMP_WORDS": " ".join([program, name, *words]), "COMP_CWORD": str(1 + len(words))}
            calls.append(([], typed | {variable: "bash_complete"}))
    require_light(program, calls, 0)


@pytest.mark.parametrize("program", GROUPS)
def test_what_click_finds_wrong_loads_nothing_heavy(program: str) -> None:
    lines = [[], ["nonsense"], ["--nonsense"]]
    for name, command in GROUPS[program].commands.items():
        lines.append([name, "--nonsense"])
        if any(parameter.required for parameter in command.params):
            lines += [[name], *([name, option, "x"] for option in valued_options(command))]
        else:
            lines += [[name, "one", "two"]]
    require_light(program, [(line, {}) for line in lines], 2)


BUILD = ["build", "--image", "a.jpg", "--out", "b", "--n"]
WRONG = {
    "patchgen": [
        [*BUILD, "0"],
        [*BUILD, "x"],
        [*BUILD, "9", "--size", "5"],
        [*BUILD, "9", "--shards", "3-1"],
        [*BUILD, "9", "--shards", "0-1", "--scheduler", "local:2"],
        [*BUILD, "9", "--scheduler", "nonsense"],
        [*BUILD, "9", "--format", "gif"],
        [*BUILD, "9", "--license", "x", "--license", "y"],
        ["build", "--image", "https://host/a.jpg", "--out", "b", "--n", "9"],
        ["build", "--image", "a.jpg", "--out", "https://host/set", "--n", "9"],
        ["verify", "set", "--fast", "--regenerate", "3"],
        ["verify", "set", "--regenerate", "3"],
        ["verify", "set", "--image", "a.jpg"],
        ["verify", "s3://bucket/set", "--fast"],
        ["source", "noise", "--size", "9", "--out", "b.png"],
        ["recipes", "nonsense"],
    ],
    "distill": [
        ["eval", "--weights", "a", "--data", "b", "--mean", "1,2"],
        ["eval", "--weights", "a", "--data", "b", "--size", "x"],
        ["convert", "a", "--out", "s3://bucket/b"],
        ["train", "--set", "optim.lr"],
        ["train", "--seeds", "1,1"],
        ["reproduce", "main", "--input", "x"],
        ["reproduce", "main", "--scale", "-1"],
        ["visualize", ".", "--arch", "resnet20"],
        ["visualize", "nonsense", "--teacher", "a"],
        ["visualize", ".", "--classes", "-1"],
        ["configs", "--keys", "x"],
    ],
}


@pytest.mark.parametrize("program", GROUPS)
def test_what_a_command_finds_wrong_loads_nothing_heavy(program: str) -> None:
    require_light(program, [(line, {}) for line in WRONG[program]], 2)


def test_a_setting_loads_the_yaml_parser_alone() -> None:
    lines = [["train", "--set", "optim.lr=[1"], ["train", "--set", "optim.lr=1"]]
    require_light("distill", [(line, {}) for line in lines], 2, frozenset({"yaml"}))


@pytest.mark.parametrize("program", GROUPS)
def test_lists_of_packaged_files_load_nothing_heavy(program: str) -> None:
    lines = {"patchgen": [["recipes"], ["recipes", "crop"]], "distill": [["configs"], ["configs", "wrn"], ["tables"]]}
    require_light(program, [(line, {}) for line in lines[program]], 0)


@pytest.mark.parametrize("package", [manifests, patchgen, distill], ids=lambda package: package.__name__)
def test_a_package_imports_its_names_when_they_are_used(package: ModuleType) -> None:
    name = package.__name__
    code = (
        f"import sys, {name}; assert not {set(HEAVY)} & set(sys.modules); from {name} import *; {package.__all__[0]}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(package, name).__name__.rpartition(".")[2] == name for name in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018
