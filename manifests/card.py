"""The card of a set: ``README.md`` with the metadata header that the Hugging Face hub reads.

Source: the hub's documentation, "Dataset cards". Names, licences and links in a manifest are a stranger's texts: in a
card they are text, whatever they look like.
"""

import hashlib
import re
from typing import Any

import yaml

from manifests.schema import Manifest, Source

CARD_NAME = "README.md"
MAX_LETTERS = 300
_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "odbl",
        "pddl",
        "gpl-3.0",
        "bsd-3-clause",
        "unlicense",
        "wtfpl",
    ]
)
"""Those of the hub's identifiers that photos come under."""
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LINK = re.compile(r"https?://[\w.-]{1,250}(:\d{1,5})?([/?#][\w./~%?=&#:@!$*+,;-]{0,500})?", re.ASCII)
_DEED = re.compile(
    r"https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(/[\w.-]*)*", re.IGNORECASE
)
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


def licence_of(manifest: Manifest) -> str | None:
    """The one licence of all photos, or None where one has none or they differ."""
    licences = {source.licence for source in manifest.sources}
    return licences.pop() if len(licences) == 1 else None


def is_link(text: str | None) -> bool:
    """Whether a text is an address of the web and nothing else."""
    return text is not None and _LINK.fullmatch(text) is not None


def _metadata(manifest: Manifest) -> dict[str, Any]:
    count = next((name for limit, name in _SIZES if manifest.n < limit), "n>10M")
    name = f"{manifest.n} patches of {manifest.size} px, {manifest.set_id[:8]}"
    return {
        "pretty_name": name,
        **_licence_metadata(manifest),
        "task_categories": ["image-classification"],
        "size_categories": [count],
        "tags": ["webdataset", "knowledge-distillation", "data-free", "single-image", "patchset"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "patches-*.tar"}]}],
    }


def _licence_metadata(manifest: Manifest) -> dict[str, str]:
    licence = licence_of(manifest)
    if licence is None:
        known_all = all(source.licence for source in manifest.sources)
        return {"license": "other", "license_name": "several"} if known_all else {"license": "unknown"}
    if (known := _identifier(licence)) in _LICENCES:
        return {"license": known}
    link = manifest.sources[0].url
    return {"license": "other", "license_name": one_line(licence)} | (
        {"license_link": link} if link is not None and is_link(link) else {}
    )


def _identifier(licence: str) -> str:
    """A licence as the hub would write it: ``cc-by-4.0`` for 'CC BY 4.0 International', or for its deed's address."""
    if deed := _DEED.fullmatch(licence.strip()):
        _, name, version = deed.groups()[:3]
        return f"cc0-{version}" if name.lower() == "zero" else f"cc-{name.lower()}-{version}"
    words = licence.lower().replace("creative commons", "cc").replace("cc 0", "cc0").split()
    return "-".join(word for word in words if word not in ("international", "universal"))


def _body(manifest: Manifest) -> str:
    image = f"{manifest.size}×{manifest.size}"
    packed, portable = (manifest.recipe.get(key) for key in ("name", "profile"))
    what, again = _PACKED if packed == "packed" else _PORTABLE if portable == "portable" else _FAST
    photos = "a single image" if len(manifest.sources) == 1 else f"{len(manifest.sources)} images"
    of = "" if packed == "packed" else f" of {photos}"
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    shards = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards):,} shards"
    recipe = plain(str(manifest.recipe.get("name", "unnamed")))
    return f"""# {manifest.n:,} patches{of}

{what} in WebDataset shards, for distilling knowledge: {manifest.n:,} RGB images of {image} pixels
({manifest.encoding.format}, {megabytes:,.1f} MB in {shards}), without labels; a teacher gives those.
Recipe {recipe}, seed {manifest.seed}. The bytes are fixed for good:

- `set_id` `{manifest.set_id}`
- `pixel_root` `{manifest.pixel_root}`

## Source

{"".join(_source(source) for source in manifest.sources)}
## Use

```sh
sha256sum -c SHA256SUMS        # every file
patchgen verify .              # every patch, and the manifest
distill train --shards . --config CONFIG --teacher FILE --eval DATA
```

```python
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


def _source(source: Source) -> str:
    lines = [
        f"- **{plain(source.name)}**, {source.width}×{source.height} pixels, SHA-256 of the file `{source.sha256}`",
        f"  - Licence: {plain(source.licence)}"
        if source.licence
        else "  - Licence: **none is known.** Without one"
        " nobody may be taken to have allowed copies of this image, or of patches of it; ask whoever made it.",
    ]
    if source.attribution:
        lines.append(f"  - By: {plain(source.attribution)}")
    if source.url:
        lines.append(f"  - From: <{source.url}>" if is_link(source.url) else f"  - From: {plain(source.url)}")
    return "\n".join(lines) + "\n"
