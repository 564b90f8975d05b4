"""Load recipes: YAML files that say how patches are made from a photo. Packaged recipes have names."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationError

from manifests.format.schema import PACKED
from manifests.support.field_values import read_counts
from manifests.support.files import read_regular_file
from manifests.support.validation import describe
from manifests.support.yaml_core import parse_yaml
from patchgen.errors import PatchgenError
from patchgen.pixels.albumentations_steps import PORTABLE, NamedConfig, probe, resolve
from patchgen.pixels.color_jitter import ColorJitterConfig
from patchgen.pixels.encode import EncodingConfig, RecordedRecipe, default_encoding
from patchgen.pixels.geometry import Geometry
from patchgen.recipes import packaged_recipes, recipe_text

MAX_RECIPE_BYTES = 1 << 20
MAX_STEPS = 32


def _kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "exact" if name == "ColorJitter" else "named"


Augment = Annotated[
    Annotated[ColorJitterConfig, Tag("exact")] | Annotated[NamedConfig, Tag("named")], Discriminator(_kind)
]
"""``ColorJitter`` is our exact one; any other name is a transform of Albumentations."""


class Recipe(RecordedRecipe):
    """A complete recipe. Equal recipes, photos, seeds and indices give equal pixels.

    ``version`` increases when the code changes a pixel under the same parameters.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[int, Field(ge=1, le=1)]
    geometry: Geometry
    augment: Annotated[tuple[Augment, ...], Field(max_length=MAX_STEPS)] = ()
    encoding: EncodingConfig

    def with_format(self, image_format: str | None) -> "Recipe":
        """Return this recipe with another image format and that format's default parameters."""
        if image_format in (None, self.encoding.format):
            return self
        return self.model_copy(update={"encoding": default_encoding(str(image_format))})

    @property
    def inexact(self) -> list[str]:
        """Return the names of the transforms that may give other bytes on other CPUs."""
        named = {config.name for config in self.augment if isinstance(config, NamedConfig)}
        return sorted(named - PORTABLE)

    @property
    def profile(self) -> str:
        return "fast" if self.inexact else "portable"

    def require_fit(self, size: int) -> None:
        """Check that every Albumentations transform works on a patch of ``size`` px and keeps its size."""
        for i, config in enumerate(self.augment):
            if isinstance(config, NamedConfig):
                probe(config, size, f"recipe {self.name}: augment[{i}]")

    def resolved(self) -> "Recipe":
        """Return this recipe with all arguments of its Albumentations transforms."""
        steps = tuple(
            resolve(config, f"augment[{i}]") if isinstance(config, NamedConfig) else config
            for i, config in enumerate(self.augment)
        )
        return self.model_copy(update={"augment": steps})


def load_recipe(name_or_path: str) -> Recipe:
    """Load a packaged recipe by name, or a YAML file."""
    names = packaged_recipes()
    if name_or_path in names:
        return parse_recipe(recipe_text(name_or_path), name_or_path)
    path = Path(name_or_path)
    try:
        text = read_regular_file(path, MAX_RECIPE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        near = get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        raise PatchgenError(
            f"recipe {name_or_path}: no packaged recipe ({hint}), and no readable file: {reason}"
        ) from error
    return parse_recipe(text, name_or_path)


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse a recipe from YAML text; ``where`` names it in errors."""
    try:
        value = parse_yaml(text)
        if not isinstance(value, dict):
            what = "is empty" if value is None else f"holds {type(value).__name__}"
            raise PatchgenError(f"{what}, expected keys such as 'geometry'; see 'patchgen recipes asano2023'")
        return _validated(value).resolved()
    except ValidationError as error:  # a subclass of ValueError
        raise PatchgenError(f"recipe {where}: {describe(error, Recipe)}") from error
    except (ValueError, PatchgenError) as error:
        raise PatchgenError(f"recipe {where}: {error}") from error


def _validated(value: dict[str, Any]) -> Recipe:
    """Validate plain values without coercion, except that a list may be a tuple and 1e6 an integer."""
    return Recipe.model_validate_json(json.dumps(read_counts(value, Recipe), default=str), strict=True)


def recorded_recipe(pixels: dict[str, Any], encoding: dict[str, Any]) -> Recipe:
    """Return the recipe that a manifest records in two parts."""
    if pixels.get("name") == PACKED and "geometry" not in pixels:
        raise PatchgenError(
            "the set was packed from files, so no photo gives it again; 'patchgen pack' their folder and compare "
            "the two with 'patchgen diff'"
        )
    parts = {key: value for key, value in pixels.items() if key != "profile"}
    try:
        recipe = _validated({**parts, "encoding": encoding}).resolved()
    except ValidationError as error:
        raise PatchgenError(f"the manifest's recipe: {describe(error, Recipe)}") from error
    if (recipe.pixels_json(), recipe.encoding_json()) != (pixels, encoding):
        raise PatchgenError(
            f"the manifest's recipe {recipe.name!r} is not complete as this version records it; "
            "use the version of the package that wrote the set"
        )
    return recipe
