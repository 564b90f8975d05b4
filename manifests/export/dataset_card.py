"""The card of a set: ``README.md`` with the metadata header that the Hugging Face hub reads.

Source: the hub's documentation, "Dataset cards". Names, licences and links in a manifest are a stranger's texts: in a
card they are text, whatever they look like.
"""

import hashlib
import re
from typing import Any

import yaml

from manifests.export.licenses import hub_licence, link_of
from manifests.format.schema import PACKED, Manifest, Source
from manifests.support.counts import counted

CARD_NAME = "README.md"
MAX_LETTERS = 300
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@:]|(?<=www)\.)", re.IGNORECASE)
"""What makes more of a text than text within a line of Markdown; a colon and www. make links of addresses."""
_SEAL = re.compile(rb"\n<!-- patchset card ([0-9a-f]{64}) -->\n\Z")


def make_card(manifest: Manifest) -> bytes:
    """The bytes of the card. They end in a digest of what stands above, by which ``is_unedited`` knows them."""
    header = yaml.safe_dump(_metadata(manifest), sort_keys=False, allow_unicode=False)
    text = f"---\n{header}---\n\n{_body(manifest)}".encode()
    return text + b"\n<!-- patchset card %s -->\n" % hashlib.sha256(text).hexdigest().encode()


def is_unedited(card: bytes) -> bool:
    """Whether a card is as ``make_card`` wrote it, of whatever set, and may be replaced."""
    match = _SEAL.search(card)
    return match is not None and hashlib.sha256(card[: match.start()]).hexdigest().encode() == match[1]


def plain(text: str) -> str:
    """A stranger's text as one line of Markdown that is nothing but text."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def one_line(text: str) -> str:
    """A text without line ends and other letters that do not print, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:MAX_LETTERS] + "…" if len(line) > MAX_LETTERS else line


def _metadata(manifest: Manifest) -> dict[str, Any]:
    count = next((name for limit, name in _SIZES if manifest.n < limit), "n>10M")
    name = f"{counted(manifest.n, 'patch')} of {manifest.size} px, {manifest.set_id[:8]}"
    return {
        "pretty_name": name,
        **hub_licence(manifest),
        "task_categories": ["image-classification"],
        "size_categories": [count],
        "tags": ["webdataset", "knowledge-distillation", *_tags(manifest), "patchset"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "patches-*.tar"}]}],
    }


def _tags(manifest: Manifest) -> list[str]:
    if manifest.recipe.get("name") == PACKED:
        return []
    return ["data-free", "single-image"] if len(manifest.sources) == 1 else ["data-free"]


def _body(manifest: Manifest) -> str:
    image = f"{manifest.size}×{manifest.size}"
    packed = manifest.recipe.get("name") == PACKED
    what, again = _PACKED if packed else _PORTABLE if manifest.recipe.get("profile") == "portable" else _FAST
    photos = "a single image" if len(manifest.sources) == 1 else f"{len(manifest.sources)} images"
    paper = "" if packed else " (The Augmented Image Prior, <https://arxiv.org/abs/2112.00725>)"
    of = "" if packed else f" of {photos}"
    digest = "SHA-256 of its files" if packed else "SHA-256 of the file"
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    images = counted(manifest.n, "RGB image", ",")
    shards = counted(len(manifest.shards), "shard", ",")
    recipe = plain(str(manifest.recipe.get("name", "unnamed")))
    return f"""# {counted(manifest.n, "patch", ",")}{of}

{what} in WebDataset shards, for distilling knowledge{paper}: {images} of {image} pixels
({manifest.encoding.format}, {megabytes:,.1f} MB in {shards}), without labels; a teacher gives those.
Recipe {recipe}, seed {manifest.seed}. The bytes are fixed for good:

- `set_id` `{manifest.set_id}`
- `pixel_root` `{manifest.pixel_root}`

## Source

{"".join(_source(source, what_of(manifest, source), digest) for source in manifest.sources)}
## Use

```sh
sha256sum -c SHA256SUMS        # every file but this page
patchgen verify .              # every patch, and the manifest
distill train --shards . --config CONFIG --teacher FILE --eval DATA
```

`patchgen` and `distill` are the programs of the Python package `single-image-distillation`. Any reader of WebDataset
reads the shards:

```python
import datasets

datasets.load_dataset("webdataset", data_files="patches-*.tar", split="train")
```

{again}
"""


_PORTABLE = (
    "Augmented patches",
    "The same source gives the same bytes again: "
    "`patchgen rebuild --manifest manifest.json --image PHOTO --out shards/`",
)
_FAST = (
    "Augmented patches",
    "Made by a recipe that processors compute differently in the last place: copy the files, a build elsewhere may "
    "differ.",
)
_PACKED = ("Images, packed as patches,", "Packed from files, which no photo makes again: copy these.")
"""What the patches are, and how the same bytes are had elsewhere."""


def what_of(manifest: Manifest, source: Source) -> str:
    """How large a source is: a photo in pixels, a folder of images by their number."""
    if manifest.recipe.get("name") == PACKED:
        return counted(manifest.n, "image", ",")
    return f"{source.width}×{source.height} pixels"


def _source(source: Source, what: str, digest: str) -> str:
    lines = [
        f"- **{plain(source.name)}**, {what}, {digest} `{source.sha256}`",
        f"  - Licence: {plain(source.licence)}"
        if source.licence
        else "  - Licence: **none is known.** Without one"
        " nobody may be taken to have allowed copies of this image, or of patches of it; ask whoever made it.",
    ]
    if source.attribution:
        lines.append(f"  - By: {plain(source.attribution)}")
    if source.url:
        link = link_of(source.url)
        lines.append(f"  - From: <{link}>" if link else f"  - From: {plain(source.url)}")
    return "\n".join(lines) + "\n"
