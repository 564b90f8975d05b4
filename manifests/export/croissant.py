"""``croissant.json``: a set described in Croissant 1.1, for tools that search and load data sets by it.

Source: the Croissant format specification 1.1 (MLCommons). No date is given: a set says nowhere when it was made.
"""

import json
from typing import Any

from manifests.export.dataset_card import one_line
from manifests.export.licenses import licence_link, link_of
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
    """The bytes of ``croissant.json``: every shard and table with its digest, and a record for each patch."""
    shards = manifest.shards
    what = "images" if manifest.recipe.get("name") == PACKED else "augmented patches"
    tars = [_file(shard, "application/x-tar") for shard in shards]
    tables = [_file(shard.parquet, "application/x-parquet") for shard in shards]
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
            *tars,
            *tables,
            _file_set("images", shards, f"*.{manifest.encoding.format}", _MEDIA[manifest.encoding.format]),
        ],
        "recordSet": [_records(manifest)],
    }
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


_MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "ppm": "image/x-portable-pixmap"}


def _card(manifest: Manifest) -> dict[str, Any]:
    """What is known of the photos. The set's own page, its maker and its date are not: nobody has said them."""
    value: dict[str, Any] = {}
    licences = sorted({source.licence for source in manifest.sources if source.licence})
    if licences and all(source.licence for source in manifest.sources):
        written = [licence_link(licence) or licence for licence in licences]
        value["license"] = written if len(written) > 1 else written[0]
    links = sorted({link for source in manifest.sources if (link := link_of(source.url)) is not None})
    if links:
        value["isBasedOn"] = links
    credits_ = sorted({source.attribution for source in manifest.sources if source.attribution})
    if credits_:
        value["creditText"] = "; ".join(map(one_line, credits_))
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


def _file_set(name: str, shards: tuple[Shard, ...], pattern: str, media: str) -> dict[str, Any]:
    contained: Any = [{"@id": shard.name} for shard in shards]
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": contained if len(contained) > 1 else contained[0],
        "encodingFormat": media,
        "includes": pattern,
    }


def _records(manifest: Manifest) -> dict[str, Any]:
    def field(name: str, kind: str, what: str, part: str) -> dict[str, Any]:
        source = {"fileSet": {"@id": "images"}, "extract": {"fileProperty": part}}
        return {
            "@type": "cr:Field",
            "@id": f"patches/{name}",
            "name": name,
            "description": what,
            "dataType": kind,
            "source": source,
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
