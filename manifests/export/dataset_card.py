"""Write the dataset card of a set: ``README.md`` with the metadata header that the Hugging Face Hub reads.

Source: the Hub's documentation, "Dataset cards". Names, licenses and links in a manifest are untrusted: a card shows
them as plain text.
"""

import hashlib
import re
from typing import Any

import jinja2
import yaml

from manifests.export.licenses import hub_license, link_of
from manifests.format.schema import PACKED, Manifest, Source
from manifests.support.counts import counted

CARD_NAME = "README.md"
MAX_LETTERS = 300
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@:]|(?<=www)\.)", re.IGNORECASE)
"""Characters with a meaning in a line of Markdown; a colon and www. turn addresses into links."""
_SEAL = re.compile(rb"\n<!-- patchset card ([0-9a-f]{64}) -->\n\Z")


def make_card(manifest: Manifest) -> bytes:
    """Return the bytes of the card. They end with a digest of the text above it, which ``is_unedited`` checks."""
    header = yaml.safe_dump(_metadata(manifest), sort_keys=False, allow_unicode=False)
    text = f"---\n{header}---\n\n{_body(manifest)}".encode()
    return text + b"\n<!-- patchset card %s -->\n" % hashlib.sha256(text).hexdigest().encode()


def is_unedited(card: bytes) -> bool:
    """Return whether a card is as ``make_card`` wrote it, for any set, and may be replaced."""
    match = _SEAL.search(card)
    return match is not None and hashlib.sha256(card[: match.start()]).hexdigest().encode() == match[1]


def plain(text: str) -> str:
    """Return an untrusted text as one line of Markdown without markup or links."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def one_line(text: str) -> str:
    """Return a text on one line, without characters that do not print, and cut to ``MAX_LETTERS``."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:MAX_LETTERS] + "…" if len(line) > MAX_LETTERS else line


def _metadata(manifest: Manifest) -> dict[str, Any]:
    count = next((name for limit, name in _SIZES if manifest.n < limit), "n>10M")
    origin = ["data-free", "single-image"] if len(manifest.sources) == 1 else ["data-free"]
    tags = [] if manifest.recipe.get("name") == PACKED else origin
    name = f"{counted(manifest.n, 'patch')} of {manifest.size} px, {manifest.set_id[:8]}"
    return {
        "pretty_name": name,
        **hub_license(manifest),
        "task_categories": ["image-classification"],
        "size_categories": [count],
        "tags": ["webdataset", "knowledge-distillation", *tags, "patchset"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "patches-*.tar"}]}],
    }


def _body(manifest: Manifest) -> str:
    loader = jinja2.PackageLoader("manifests", "export")
    # S701: the page is Markdown, and every untrusted text in it passes through ``plain`` or ``link_of``.
    environment = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701
    environment.filters |= {"counted": counted, "plain": plain, "link": link_of}
    several = len(manifest.sources) > 1
    return environment.get_template("card.md.j2").render(
        manifest=manifest,
        packed=manifest.recipe.get("name") == PACKED,
        photos=f"{len(manifest.sources)} images" if several else "a single image",
        megabytes=sum(shard.bytes for shard in manifest.shards) / 1e6,
        what_of=what_of,
    )


def what_of(manifest: Manifest, source: Source) -> str:
    """Return the size of a source: a photo's in pixels, or the number of images in a packed folder."""
    if manifest.recipe.get("name") == PACKED:
        return counted(manifest.n, "image", ",")
    return f"{source.width}×{source.height} pixels"
