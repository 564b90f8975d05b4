"""Rebuild small reference sets, to check that this machine produces the same bytes as other machines."""

import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from manifests.format.schema import Manifest, parse_manifest
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import plan_of
from patchgen.sources.photo import Photo, read_photo
from patchgen.sources.synthetic import make_source, write_source


def goldens() -> dict[str, Manifest]:
    """Return a dict from the name of each reference set to its manifest. The photos of these sets are synthetic."""
    folder = resources.files("manifests") / "golden"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {file.name.removesuffix(".json"): parse_manifest(file.read_bytes(), file.name) for file in files}


def golden_photos(manifest: Manifest, folder: Path) -> list[Photo]:
    """Write the synthetic photos of a set into ``folder`` as KIND-WIDTHxHEIGHT-SEED.png. Return the photos."""
    photos = []
    for source in manifest.sources:
        kind, extent, seed = source.name.removesuffix(".png").rsplit("-", 2)
        width, height = map(int, extent.split("x"))
        path = folder / source.name
        if not path.exists():
            write_source(path, make_source(kind, width, height, int(seed)))
        photos.append(read_photo(path))
    return photos


def examine() -> Iterator[tuple[str, Manifest, Manifest]]:
    """Rebuild every reference set. Yield for each set its name, the expected manifest and the rebuilt manifest."""
    with tempfile.TemporaryDirectory(prefix="patchgen-doctor-") as temporary:
        for name, expected in goldens().items():
            photos = golden_photos(expected, Path(temporary))
            plan = plan_of(expected, photos, n=expected.n)
            yield name, expected, build(plan, photos, Path(temporary) / name, workers=1)
