"""Recipes: what is done to a photo to make a patch, as a YAML file. Packaged ones go by name."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.faults import describe, parse_yaml
from manifests.files import read_regular_file
from patchgen.colour import ColorJitterConfig
from patchgen.encode import EncodingConfig, default_encoding
from patchgen.errors import PatchgenError
from patchgen.geometry import Geometry

MAX_RECIPE_BYTES = 1 << 20


class Recipe(BaseModel):
    """A complete recipe. Equal recipes, photos, seeds and indices give equal pixels.

    ``version`` counts changes of the code that would change a pixel under the same parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[int, Field(ge=1, le=1)]
    geometry: Geometry
    augment: tuple[ColorJitterConfig, ...] = ()
    encoding: EncodingConfig

    def with_format(self, image_format: str | None) -> "Recipe":
        """This recipe storing another image format, with that format's default parameters."""
        if image_format in (None, self.encoding.format):
            return self
        return self.model_copy(update={"encoding": default_encoding(str(image_format))})

    def pixels_json(self) -> dict[str, Any]:
        """The part that decides pixels, as a manifest records it: everything but the encoding."""
        return self.model_dump(mode="json", exclude={"encoding"}) | {"profile": "portable"}

    def encoding_json(self) -> dict[str, Any]:
        """The part that decides bytes, as a manifest records it."""
        return self.encoding.model_dump(mode="json")


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("patchgen") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A packaged recipe by name, or one from a YAML file.

    Raises:
        PatchgenError: neither a packaged name nor a file, not YAML, or a key missing, unknown or ill-typed.
    """
    names = packaged_recipes()
    if name_or_path in names:
        text = (resources.files("patchgen") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return parse_recipe(text, name_or_path)
    path = Path(name_or_path)
    try:
        text = read_regular_file(path, MAX_RECIPE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise PatchgenError(
            f"recipe {name_or_path}: no packaged recipe (there are: {', '.join(names)}), "
            f"and no readable file: {reason}"
        ) from error
    return parse_recipe(text, name_or_path)


def parse_recipe(text: str, where: str) -> Recipe:
    """A recipe from YAML text; ``where`` names it in errors.

    Raises:
        PatchgenError: not YAML, or a key missing, unknown or ill-typed.
    """
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise PatchgenError(f"recipe {where}: {error}") from error
    if not isinstance(value, dict):
        raise PatchgenError(f"recipe {where}: holds {type(value).__name__}, expected keys such as 'geometry'")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise PatchgenError(f"recipe {where}: {describe(error, Recipe)}") from error
