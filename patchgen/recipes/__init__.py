"""Read the recipes of the package."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def packaged_recipes() -> list[str]:
    """Return the sorted names of the packaged recipes."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def recipe_text(name: str) -> str:
    """Return the YAML text of a packaged recipe, with its comments."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
