"""Load recipes: YAML files or dicts that describe how patches are made from a photo. Some are part of the package."""

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationError

from manifests.format.schema import PACKED
from manifests.support.files import expand_home, read_regular_file
from manifests.support.user_code import UserCodeError, importable_name
from manifests.support.validation import describe, read_counts
from manifests.support.yaml_core import parse_yaml
from patchgen.errors import PatchgenError
from patchgen.pixels.albumentations_steps import PORTABLE, NamedConfig, probe, resolve
from patchgen.pixels.color_jitter import ColorJitterConfig
from patchgen.pixels.encode import EncodingConfig, RecordedRecipe, default_encoding
from patchgen.pixels.geometry import Geometry
from patchgen.pixels.own_steps import OwnConfig, probe_own, resolve_own
from patchgen.recipes import packaged_recipes, recipe_text

MAX_RECIPE_BYTES = 1 << 20
MAX_STEPS = 32


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if isinstance(name, str) and ":" in name:
        return "own"
    return "exact" if name == "ColorJitter" else "named"


Augment = Annotated[
    Annotated[ColorJitterConfig, Tag("exact")]
    | Annotated[NamedConfig, Tag("named")]
    | Annotated[OwnConfig, Tag("own")],
    Discriminator(_kind),
]
"""A step of a recipe: ``ColorJitter`` of this package, an Albumentations transform, or a user's function."""


class Recipe(RecordedRecipe):
    """A complete recipe. Recipe, photos, seed and index determine every pixel of a patch.

    ``version`` increases when a new release of this package computes other pixels from the same parameters.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[int, Field(ge=1, le=1)]
    geometry: Geometry
    augment: Annotated[tuple[Augment, ...], Field(max_length=MAX_STEPS)] = ()
    encoding: EncodingConfig

    def with_format(self, image_format: str | None) -> "Recipe":
        """Return this recipe with another image format and the default parameters of this format."""
        if image_format in (None, self.encoding.format):
            return self
        return self.model_copy(update={"encoding": default_encoding(str(image_format))})

    @property
    def inexact(self) -> list[str]:
        """Return the names of the transforms and functions that may produce other bytes on other CPUs."""
        named = {config.name for config in self.augment if isinstance(config, NamedConfig | OwnConfig)}
        return sorted(named - PORTABLE)

    @property
    def inexact_note(self) -> str:
        """Return the note of a build whose recipe is not exact."""
        what = f"the recipe {self.name!r} has profile fast and uses {', '.join(self.inexact)}"
        return f"{what}, so another CPU may produce other bytes"

    @property
    def profile(self) -> str:
        return "fast" if self.inexact else "portable"

    def require_fit(self, size: int) -> None:
        """Check that every transform and function accepts patches of ``size`` px and preserves their size."""
        for i, config in enumerate(self.augment):
            if isinstance(config, NamedConfig):
                probe(config, size, f"recipe {self.name}: augment[{i}]")
            elif isinstance(config, OwnConfig):
                probe_own(config, size, f"recipe {self.name}: augment[{i}]")

    def resolved(self) -> "Recipe":
        """Return this recipe with the default arguments of its transforms and functions filled in."""
        steps = tuple(_resolved(config, f"augment[{i}]") for i, config in enumerate(self.augment))
        return self.model_copy(update={"augment": steps})

    def environment(self) -> dict[str, str]:
        """Return the versions of the packages that contain the recipe's own functions, by the package's name."""
        own = (config.environment() for config in self.augment if isinstance(config, OwnConfig))
        return {name: version for found in own for name, version in found.items()}


def _resolved(config: ColorJitterConfig | NamedConfig | OwnConfig, where: str) -> Any:
    if isinstance(config, NamedConfig):
        return resolve(config, where)
    return resolve_own(config, where) if isinstance(config, OwnConfig) else config


AnyRecipe = str | os.PathLike[str] | Mapping[str, Any] | Recipe


def load_recipe(recipe: AnyRecipe) -> Recipe:
    """Load a recipe of the package by its name, a YAML file by its path, or a dict with the keys of such a file.

    In a dict, the ``name`` of a step may be a function of the user (docs/recipes.md).

    Raises:
        PatchgenError: the recipe does not exist, or it has a fault.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return _recipe_of_dict(recipe)
    if not isinstance(recipe, str | os.PathLike):
        what = f"the recipe is a {type(recipe).__name__}, expected a name, a path or a dict"
        raise PatchgenError(f"{what}; give for example recipe='asano2023'")
    name_or_path, names = os.fspath(recipe), packaged_recipes()
    if name_or_path in names:
        return parse_recipe(recipe_text(name_or_path), name_or_path)
    try:
        text = read_regular_file(Path(expand_home(name_or_path)), MAX_RECIPE_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = "the file is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else reason
        near = get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give a YAML file or one of: {', '.join(names)}"
        what = f"this is not a packaged recipe, and cannot be read as a file: {reason}"
        raise PatchgenError(f"recipe {name_or_path}: {what}; {hint}") from error
    return parse_recipe(text, name_or_path)


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse a recipe from YAML text. ``where`` is the name of the recipe in error messages."""
    try:
        value = parse_yaml(text)
        if not isinstance(value, dict):
            what = "the file is empty" if value is None else f"the file contains a YAML {type(value).__name__}"
            raise PatchgenError(f"{what}, expected keys and values; run 'patchgen recipes asano2023' for an example")
        return _validated(value).resolved()
    except ValidationError as error:  # a subclass of ValueError
        raise PatchgenError(f"recipe {where}: {describe(error, Recipe)}; correct the recipe") from error
    except ValueError as error:
        raise PatchgenError(f"recipe {where}: {error}; correct the recipe") from error
    except PatchgenError as error:
        raise PatchgenError(f"recipe {where}: {error}", error.user_traceback) from error


def _recipe_of_dict(value: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a dict. Functions that are the ``name`` of a step are replaced by their names."""
    where, steps = f"recipe {value.get('name', 'without a name')}", value.get("augment", ())
    try:
        if isinstance(steps, list | tuple):
            value = {**value, "augment": [_named(step) for step in steps]}
        json.dumps(value := dict(value), allow_nan=False)
        return _validated(value).resolved()
    except ValidationError as error:
        raise PatchgenError(f"{where}: {describe(error, Recipe)}; correct the recipe") from error
    except (UserCodeError, PatchgenError) as error:
        raise PatchgenError(f"{where}: {error}", error.user_traceback) from error
    except (TypeError, ValueError) as error:  # of json.dumps
        what = f"a manifest cannot record a value of this recipe: {error}"
        raise PatchgenError(f"{where}: {what}; use texts, finite numbers, lists and dicts") from error


def _named(step: Any) -> Any:
    if isinstance(step, Mapping) and callable(step.get("name")):
        return {**step, "name": importable_name(step["name"])}
    return step


def _validated(value: dict[str, Any]) -> Recipe:
    """Validate the values of a YAML or JSON file strictly. A list may become a tuple, and 1e6 an integer."""
    return Recipe.model_validate_json(json.dumps(read_counts(value, Recipe), default=str), strict=True)


def recorded_recipe(pixels: dict[str, Any], encoding: dict[str, Any]) -> Recipe:
    """Return the recipe of a manifest, from its two parts: ``pixels`` and ``encoding``."""
    if pixels.get("name") == PACKED and "geometry" not in pixels:
        raise PatchgenError(
            "the set was packed from image files, so it cannot be rebuilt from a photo; run 'patchgen pack' on the "
            "folder of these files, and compare the two sets with 'patchgen diff'"
        )
    parts = {key: value for key, value in pixels.items() if key != "profile"}
    try:
        recipe = _validated({**parts, "encoding": encoding}).resolved()
    except ValidationError as error:
        advice = "download the manifest again, or report this to the publisher of the set"
        raise PatchgenError(f"the manifest's recipe: {describe(error, Recipe)}; {advice}") from error
    except PatchgenError as error:
        raise PatchgenError(f"the manifest's recipe: {error}", error.user_traceback) from error
    if (recipe.pixels_json(), recipe.encoding_json()) != (pixels, encoding):
        raise PatchgenError(
            f"the manifest's recipe {recipe.name!r} has other keys than this version of the package writes; install "
            "the version of single-image-distillation that the manifest names under 'environment'"
        )
    return recipe
