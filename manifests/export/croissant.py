"""Write ``croissant.json``, the description of a set in Croissant 1.1, for tools that search and load data sets.

Source: the Croissant format specification 1.1 (MLCommons). There is no date, because a manifest has none.
"""

import json
from typing import Any

from manifests.export.dataset_card import one_line
from manifests.export.licenses import license_link, link_of
from manifests.format.schema import PACKED, Manifest, ParquetFile, Shard

CROISSANT_NAME = "croissant.json"
_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty"),
    *("fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
    *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
    *("source", "subField", "transform"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def make_croissant(manifest: Manifest) -> bytes:
    """Return the bytes of ``croissant.json``: every shard and table with its digest, and a record for each patch."""
    shards, image_format = manifest.shards, manifest.encoding.format
    what = "images" if manifest.recipe.get("name") == PACKED else "augmented patches"
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"patchset-{manifest.set_id[:16]}",
        "description": f"{manifest.n} {what} of {manifest.size} px, set_id {manifest.set_id}",
        "keywords": ["knowledge distillation", "image patches", "WebDataset"],
        "version": "1.0.0",
        "identifier": manifest.set_id,
        **_card(manifest),
        "distribution": [
            *(_file(shard, "application/x-tar") for shard in shards),
            *(_file(shard.parquet, "application/x-parquet") for shard in shards),
            _images(shards, image_format),
        ],
        "recordSet": [_records(manifest)],
    }
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "ppm": "image/x-portable-pixmap"}


def _card(manifest: Manifest) -> dict[str, Any]:
    """Return what the manifest says of its photos. It does not know the set's own page, author and date."""
    value: dict[str, Any] = {}
    licenses = sorted({source.licence for source in manifest.sources if source.licence})
    if licenses and all(source.licence for source in manifest.sources):
        links = [license_link(license_) or license_ for license_ in licenses]
        value["license"] = links if len(links) > 1 else links[0]
    if pages := sorted({link for source in manifest.sources if (link := link_of(source.url)) is not None}):
        value["isBasedOn"] = pages
    if authors := sorted({source.attribution for source in manifest.sources if source.attribution}):
        value["creditText"] = "; ".join(map(one_line, authors))
    return value


def _file(file: Shard | ParquetFile, media: str) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
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


def _records(manifest: Manifest) -> dict[str, Any]:
    def field(name: str, kind: str, description: str, extract: str) -> dict[str, Any]:
        return {
            "@type": "cr:Field",
            "@id": f"patches/{name}",
            "name": name,
            "description": description,
            "dataType": kind,
            "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": extract}},
        }

    size = manifest.size
    return {
        "@type": "cr:RecordSet",
        "@id": "patches",
        "name": "patches",
        "description": "One record for each patch.",
        "key": {"@id": "patches/key"},
        "field": [
            field("key", "sc:Text", "File name of the patch in its shard: its index and its format.", "filename"),
            field("image", "sc:ImageObject", f"The patch, RGB, {size}×{size} pixels.", "content"),
        ],
    }
