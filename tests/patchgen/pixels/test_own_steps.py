"""Test recipes with functions that users wrote."""

import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import patchgen
from manifests import open_patchset
from manifests.support import user_code
from patchgen.recipe import parse_recipe
from tests.conftest import Program, assert_one_line

MODULE = """
import os
import numpy as np

def dim(patch, rng, *, by=2, names=()):
    return patch // by

def grain(patch, rng, *, strength=8.0):
    return np.clip(patch + rng.normal(0, strength, patch.shape), 0, 255).astype(np.uint8)

def mirror(patch, rng):
    return patch[:, ::-1]

def fails(patch, rng):
    return _inner(patch)

def fails_late(patch, rng):
    if patch[0, 0, 0] != 175:  # a value of the noise that every function is tried with
        raise ValueError("a patch\\nof the photo")
    return patch

def _inner(patch):
    raise KeyError("zebra")

def wild(patch, rng):
    return np.random.default_rng().integers(0, 255, patch.shape, dtype=np.uint8)

def cut(patch, rng):
    return patch[:5]

def floats(patch, rng):
    return patch / 255

def nothing(patch, rng):
    pass

def leaves(patch, rng):
    raise SystemExit(0)

def moves(patch, rng):
    os.chdir("/")
    return patch

def no_rng(patch, *, by=1):
    return patch

def takes_p(patch, rng, *, p):
    return patch

NUMBER = 5
"""
RECIPE: dict[str, Any] = {
    "name": "mine",
    "version": 1,
    "geometry": {
        **{"crop": 1, "area": [1, 1], "aspect": [1, 1], "oversize": 1},
        **{"rotation": 0, "shear": 0, "corners": "photo"},
    },
    "encoding": {"format": "ppm"},
}
YAML = """
name: mine
version: 1
geometry: {crop: 1, area: [1, 1], aspect: [1, 1], oversize: 1, rotation: 0, shear: 0, corners: photo}
augment: [%s]
encoding: {format: ppm}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write the module of a user into the current folder, and import it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(user_code, "_allowed", set())
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    (tmp_path / "mysteps.py").write_text(MODULE)
    user_code.source_digest.cache_clear()
    import mysteps  # type: ignore[import-not-found]

    yield mysteps
    del sys.modules["mysteps"]
    user_code.source_digest.cache_clear()


def recipe_of(*steps: dict[str, Any]) -> dict[str, Any]:
    return {**RECIPE, "augment": list(steps)}


def test_a_function_in_python(module: Any, tmp_path: Path, photo_path: Path) -> None:
    recipe = recipe_of({"name": module.dim, "p": 0.5, "by": 4}, {"name": module.mirror, "p": 1})
    patchset = patchgen.build(photo_path, n=40, out=tmp_path / "one", recipe=recipe, shard_size=10, workers=2)
    plain = patchgen.Patches(photo_path, recipe=recipe_of())
    patches = patchgen.Patches(photo_path, recipe=recipe)
    manifest = patchset.manifest
    digest = hashlib.sha256(MODULE.encode()).hexdigest()
    first = {"name": "mysteps:dim", "p": 0.5, "by": 4, "sha256": digest}
    assert manifest.recipe["augment"] == [first, {"name": "mysteps:mirror", "p": 1, "sha256": digest}]
    assert manifest.recipe["profile"] == "fast"
    assert manifest.environment["mysteps"] == "no version" and "cpu_features" in manifest.environment
    rows = [row for path in sorted((tmp_path / "one").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    applied = [row["augment0_dim_applied"] for row in rows]
    assert 8 < sum(applied) < 32 and all(row["augment1_mirror_applied"] for row in rows)
    for i in range(40):
        expected = plain[i][:, ::-1] // (4 if applied[i] else 1)
        assert np.array_equal(patchset[i], expected) and np.array_equal(patches[i], expected)


def test_random_numbers_depend_on_seed_and_index(module: Any, photo_path: Path) -> None:
    recipe = recipe_of({"name": module.grain, "p": 1})
    patches, again = patchgen.Patches(photo_path, recipe=recipe), patchgen.Patches(photo_path, recipe=recipe)
    plain = patchgen.Patches(photo_path, recipe=recipe_of())
    noise = [patches[i].astype(int) - plain[i] for i in range(3)]
    assert np.array_equal(again[2], patches[2]) and 4 < noise[0].std() < 12
    assert not np.array_equal(noise[0], noise[1])
    assert not np.array_equal(patchgen.Patches(photo_path, recipe=recipe, seed=1)[0], patches[0])


def test_the_command_line(module: Any, tmp_path: Path, photo_path: Path, run_patchgen: Program) -> None:
    (tmp_path / "mine.yaml").write_text(YAML % "{name: mysteps:dim, p: 1}")
    command = ["build", "--image", photo_path, "--n", 20, "--shard-size", 10, "--recipe", "mine.yaml"]
    refused = (
        "the import of mysteps:dim from the package 'mysteps' is not allowed; if you trust this code, add --allow"
    )
    assert_one_line(run_patchgen(*command, "--out", "a"), "recipe mine.yaml: augment[0]: ", refused)
    allow = ["--allow-import", "mysteps"]
    built = run_patchgen(*command, "--out", "a", *allow)
    assert built.status == 0 and "profile fast and uses mysteps:dim" in built.err
    assert open_patchset("a").manifest.recipe["augment"][0]["by"] == 2  # the manifest contains defaults
    user_code._allowed.clear()
    others = {
        "rebuild": ["--manifest", "a", "--image", photo_path, "--out", "b"],
        "extend": ["a", "--n", 30, "--image", photo_path],
        "verify": ["a", "--regenerate", 5, "--image", photo_path],
        "preview": ["a", "--image", photo_path, "--out", "sheet.png"],
    }
    for name, words in others.items():
        assert_one_line(run_patchgen(name, *words), "the manifest's recipe: augment[0]: ", refused)
        assert run_patchgen(name, *words, *allow).status == 0
        user_code._allowed.clear()
    assert run_patchgen("verify", "a").status == run_patchgen("info", "a").status == 0  # they import nothing
    assert_one_line(run_patchgen(*command, "--out", "c", "--allow-import", "my-steps"), "is not the name", status=2)


def test_values_that_a_manifest_cannot_record(module: Any) -> None:
    for value in (np.ones(3), float("nan"), module.dim):
        with pytest.raises(
            patchgen.PatchgenError, match=r"^recipe mine: a manifest cannot record a value of this recipe"
        ):
            patchgen.load_recipe(recipe_of({"name": module.grain, "strength": value}))


def test_an_edited_function(module: Any, tmp_path: Path, photo_path: Path, run_patchgen: Program) -> None:
    patchgen.build(photo_path, n=5, out=tmp_path / "a", recipe=recipe_of({"name": module.dim}))
    (tmp_path / "mysteps.py").write_text(f"{MODULE}# edited\n")
    user_code.source_digest.cache_clear()
    result = run_patchgen(
        "rebuild", "--manifest", "a", "--image", photo_path, "--out", "b", "--allow-import", "mysteps"
    )
    assert_one_line(
        result, "the file of mysteps:dim has the sha256", "but the recipe declares", "install the version"
    )


def test_a_function_that_raises(module: Any, photo_path: Path, run_patchgen: Program, tmp_path: Path) -> None:
    """The command prints one line, and below it the traceback of the user's own code."""
    where = "recipe mine: augment[0]: a patch of noise: "
    for name, line, last in (
        (
            "fails",
            f"{where}mysteps:fails (your code) raised KeyError: 'zebra'; correct this code",
            "KeyError: 'zebra'",
        ),
        (
            "fails_late",
            "mysteps:fails_late (your code) raised ValueError: a patch of the photo; correct",
            "of the photo",
        ),
    ):
        (tmp_path / "mine.yaml").write_text(YAML % f"{{name: mysteps:{name}, p: 1}}")
        words = ["--n", 40, "--shard-size", 10, "--workers", 2, "--recipe", "mine.yaml", "--allow-import", "mysteps"]
        result = run_patchgen("build", "--image", photo_path, "--out", "a", *words)
        lines = result.err.splitlines()
        assert result.status == 1 and line in lines[0] and lines[1] == "Traceback (most recent call last):"
        assert "mysteps.py" in lines[2] and lines[-1] == last and "own_steps.py" not in result.err
        with pytest.raises(patchgen.PatchgenError) as caught:
            patchgen.Patches(photo_path, recipe=recipe_of({"name": getattr(module, name), "p": 1}))[0]
        assert line in str(caught.value) and isinstance(caught.value.__cause__, KeyError | ValueError)


@pytest.mark.parametrize(
    ("step", "part"),
    [
        ("name: mysteps:wild", "mysteps:wild returned two different results for the same patch and the same rng"),
        ("name: mysteps:cut", "mysteps:cut returned uint8 of shape (5, 32, 3), expected an array of uint8 of shape"),
        ("name: mysteps:floats", "mysteps:floats returned float64 of shape (32, 32, 3), expected an array of uint8"),
        ("name: mysteps:nothing", "mysteps:nothing returned a NoneType, expected an array of uint8"),
        (
            "name: mysteps:no_rng",
            "mysteps:no_rng(patch, *, by=1): too many positional arguments, and it is called as",
        ),
        ("name: mysteps:leaves", "mysteps:leaves (your code) raised SystemExit: 0; correct this code"),
        ("name: mysteps:takes_p", "mysteps:takes_p has an argument 'p', which is a key of every step"),
        ("name: mysteps:grain, strenght: 2", "mysteps:grain has no argument 'strenght'; did you mean strength?"),
        ("name: mysteps:grain, strength: .nan", "mysteps:grain has an argument that is not a finite number"),
        ("name: mysteps:mirror, q: 2", "mysteps:mirror has no argument 'q'; its arguments are patch and rng"),
        ("name: mysteps:gran", "the module mysteps has no function 'gran'; did you mean grain?"),
        ("name: mysteps:NUMBER", "mysteps:NUMBER is a int, expected a function"),
        ("name: mysteps.deep:dim", "there is no module 'mysteps.deep'"),
        ("name: mysteps:dim, p: 2", "augment[0].p: Input should be less than or equal to 1"),
        ("name: mysteps:dim, sha256: x", "augment[0].sha256: String should match pattern"),
        ("name: 'mysteps:dim.x'", "augment[0].name: String should match pattern"),
        ("name: os:system", "the import of os:system from the package 'os' is not allowed"),
        ("name: mystepsother:dim", "the import of mystepsother:dim from the package 'mystepsother' is not allowed"),
    ],
)
def test_what_a_function_may_not_be(module: Any, photo_path: Path, step: str, part: str) -> None:
    patchgen.allow_import("mysteps")
    with pytest.raises(patchgen.PatchgenError) as caught:
        parse_recipe(YAML % f"{{{step}}}", "mine.yaml").require_fit(32)
    assert part in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("recipe mine") and "augment[0]" in str(caught.value)


def test_a_module_that_fails(module: Any, tmp_path: Path) -> None:
    patchgen.allow_import("broken")
    for text, part in (
        (
            "import nonexistent_package",
            "(your code) raised ModuleNotFoundError: No module named 'nonexistent_package'",
        ),
        ("def f(:", "(your code) raised SyntaxError: "),
        ("raise SystemExit(0)", "(your code) raised SystemExit: 0"),
        ("1 / 0", "(your code) raised ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "(your code) raised SystemExit"),
    ):
        (tmp_path / "broken.py").write_text(f"{text}\n")
        with pytest.raises(patchgen.PatchgenError, match=r"the import of broken ") as caught:
            parse_recipe(YAML % "{name: broken:f}", "mine.yaml")
        assert part in str(caught.value) and "broken.py" in caught.value.user_traceback


def test_a_function_that_changes_the_folder(module: Any, tmp_path: Path, photo_path: Path) -> None:
    """The relative path of the set means the folder in which the program was started."""
    recipe = RECIPE | {"augment": [{"name": module.moves, "p": 1}]}
    patchgen.build(photo_path, n=2, out="moved", recipe=recipe, workers=1)
    assert Path.cwd() == tmp_path and not patchgen.verify(tmp_path / "moved")


def test_functions_that_no_other_process_could_import(module: Any) -> None:
    def local(patch: Any, rng: Any) -> Any:
        return patch

    main = type(local)(local.__code__, {}, "in_notebook")
    main.__module__ = "__main__"
    for function, part in (
        (local, ".<locals>.local is not a function at the top level of its module; give a function that is"),
        (main, "is defined in the running program or notebook, where other processes cannot import it; move"),
        (functools.partial(module.dim, by=3), "by=3) is not a function at the top level of its module"),
    ):
        with pytest.raises(patchgen.PatchgenError, match=r"^recipe mine: ") as caught:
            patchgen.load_recipe(recipe_of({"name": function}))
        assert part in str(caught.value)


def test_allowed_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "_allowed", set())
    patchgen.allow_import("package.inner")
    for name in ("package.inner:f", "package.inner.module:f"):
        user_code.require_allowed(name)
    for name in ("package:f", "package.inner2:f", "package.other:f", "inner:f"):
        with pytest.raises(user_code.UserCodeError, match=f"{name} from the package .* is not allowed"):
            user_code.require_allowed(name)
    assert user_code.package_version("numpy.linalg:det") == ("numpy", np.__version__)
    assert user_code.package_version("yaml:load")[0].lower() == "pyyaml"
