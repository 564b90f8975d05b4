"""Rebuild small reference sets and compare them: does this machine make the same bytes as others?"""

import dataclasses
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from manifests.format.schema import Manifest, parse_manifest
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import plan_of
from patchgen.sources.photo import Photo, read_photo
from patchgen.sources.synthetic import make_source, write_source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A reference set: its manifest, and that of the set which this machine built."""

    name: str
    expected: Manifest
    built: Manifest

    @property
    def good(self) -> bool:
        """Whether all bytes are the same."""
        return self.built.set_id == self.expected.set_id


def goldens() -> dict[str, Manifest]:
    """Return the manifests of the reference sets, by name. Their sources are images of ``patchgen source``."""
    folder = resources.files("manifests") / "golden"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {file.name.removesuffix(".json"): parse_manifest(file.read_bytes(), file.name) for file in files}


def golden_photos(manifest: Manifest, folder: Path) -> list[Photo]:
    """Make the sources of a reference set in ``folder`` from their names: KIND-WIDTHxHEIGHT-SEED.png."""
    photos = []
    for source in manifest.sources:
        kind, extent, seed = source.name.removesuffix(".png").rsplit("-", 2)
        width, height = map(int, extent.split("x"))
        path = folder / source.name
        if not path.exists():
            write_source(path, make_source(kind, width, height, int(seed)))
        photos.append(read_photo(path))
    return photos


def examine() -> Iterator[Finding]:
    """Rebuild every reference set, and yield what was found of each."""
    with tempfile.TemporaryDirectory(prefix="patchgen-doctor-") as temporary:
        for name, expected in goldens().items():
            photos = golden_photos(expected, Path(temporary))
            plan = plan_of(expected, photos, n=expected.n)
            yield Finding(name=name, expected=expected, built=build(plan, photos, Path(temporary) / name, workers=1))
