"""Read the recipes that come with the package."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def packaged_recipes() -> list[str]:
    """Return the names of the recipes that come with the package, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def recipe_text(name: str) -> str:
    """Return the YAML text of a packaged recipe, comments included."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
