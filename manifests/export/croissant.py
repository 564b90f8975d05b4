"""Write ``croissant.json``, a description of a set for tools that search and load data sets.

Source: the Croissant format specification 1.1 (MLCommons). The file has no date, because a manifest has no date.
"""

import json
from pathlib import Path
from typing import Any

from manifests.export.dataset_card import license_link, link_of, one_line
from manifests.format.schema import PACKED, File, Manifest, Shard

CROISSANT_NAME = "croissant.json"
_BASE = Path(__file__).with_name("croissant_base.json")  # common to all sets; a null is replaced or removed
_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "ppm": "image/x-portable-pixmap"}


def make_croissant(manifest: Manifest) -> bytes:
    """Return the bytes of ``croissant.json``. The file lists all shards and tables with their digests."""
    shards, size = manifest.shards, manifest.size
    what = "images" if manifest.recipe.get("name") == PACKED else "augmented patches"
    value = json.loads(_BASE.read_bytes())
    value["recordSet"][0]["field"][1]["description"] = f"The patch, RGB, {size}×{size} pixels."
    value |= {
        "name": f"patchset-{manifest.set_id[:16]}",
        "description": f"{manifest.n} {what} of {size} px, set_id {manifest.set_id}",
        "identifier": manifest.set_id,
        **_credits(manifest),
        "distribution": [
            *(_file(shard, "application/x-tar") for shard in shards),
            *(_file(shard.parquet, "application/x-parquet") for shard in shards),
            _images(shards, manifest.encoding.format),
        ],
    }
    value = {key: part for key, part in value.items() if part is not None}
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


def _credits(manifest: Manifest) -> dict[str, Any]:
    sources = manifest.sources
    value: dict[str, Any] = {}
    licenses = sorted({source.licence for source in sources if source.licence})
    if licenses and all(source.licence for source in sources):
        links = [license_link(text) or text for text in licenses]
        value["license"] = links if len(links) > 1 else links[0]
    if pages := sorted({link for source in sources if (link := link_of(source.url)) is not None}):
        value["isBasedOn"] = pages
    if authors := sorted({source.attribution for source in sources if source.attribution}):
        value["creditText"] = "; ".join(map(one_line, authors))
    return value


def _file(file: File, media: str) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        **dict.fromkeys(("@id", "name", "contentUrl"), file.name),
        "contentSize": f"{file.bytes} B",
        "encodingFormat": media,
        "sha256": file.sha256,
    }


def _images(shards: tuple[Shard, ...], image_format: str) -> dict[str, Any]:
    tars: Any = [{"@id": shard.name} for shard in shards]
    return {
        "@type": "cr:FileSet",
        "@id": "images",
        "name": "images",
        "containedIn": tars if len(tars) > 1 else tars[0],
        "encodingFormat": _MEDIA[image_format],
        "includes": f"*.{image_format}",
    }
