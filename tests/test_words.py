"""Test that code and pages contain no words that only readers of the project's history understand."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = (
    *("rooms", "wiring", "hears", "stranger", "strangers", "elsewhere", "anew", "nobody", "whoever", "lesson"),
    *("judge", "judges", "judged", "verdict", "crew", "shelf", "wish", "prices", "pins", "patience"),
)
PATTERN = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
FILES = [
    str(path.relative_to(ROOT))
    for folder in ("manifests", "patchgen", "distill", "scripts", "docs", "benchmarks")
    for suffix in ("*.py", "*.md", "*.yaml", "*.j2")
    for path in sorted((ROOT / folder).rglob(suffix))
] + sorted(path.name for path in ROOT.glob("*.md"))


def prose(path: Path) -> list[tuple[int, str]]:
    """Return pairs of line number and text: comments and strings of a Python file, or all lines of another file."""
    if path.suffix != ".py":
        return list(enumerate(path.read_text().splitlines(), 1))
    code = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    found = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value))
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_no_banned_words(file: str) -> None:
    hits = [f"{file}:{line}: {match[0]}" for line, text in prose(ROOT / file) for match in PATTERN.finditer(text)]
    assert not hits
