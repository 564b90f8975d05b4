"""Write the dataset card of a set: ``README.md`` with the metadata header that the Hugging Face Hub reads.

Source: the Hub's documentation, "Dataset cards". Names, licenses and links in a manifest are untrusted. A card shows
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
"""Special characters in a line of Markdown. A colon and www. would turn addresses into links."""
_SEAL = re.compile(rb"\n<!-- patchset card ([0-9a-f]{64}) -->\n\Z")


def make_card(manifest: Manifest) -> bytes:
    """Return the bytes of the card. The last line is a digest of the text, which ``is_unedited`` checks."""
    header = yaml.safe_dump(_metadata(manifest), sort_keys=False, allow_unicode=False)
    text = f"---\n{header}---\n\n{_body(manifest)}".encode()
    return text + b"\n<!-- patchset card %s -->\n" % hashlib.sha256(text).hexdigest().encode()


def is_unedited(card: bytes) -> bool:
    """Return whether ``make_card`` wrote a card and no user edited it. The card may be of another set."""
    match = _SEAL.search(card)
    return match is not None and hashlib.sha256(card[: match.start()]).hexdigest().encode() == match[1]


def plain(text: str) -> str:
    """Return an untrusted text as one line of Markdown that contains no markup and no links."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def one_line(text: str) -> str:
    """Return the printable characters of a text on one line of at most ``MAX_LETTERS`` characters."""
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
    # S701: the page is Markdown, and ``plain`` or ``link_of`` escapes every untrusted text.
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
    """Return the size of a source as text: the pixels of a photo, or the number of images of a packed folder."""
    if manifest.recipe.get("name") == PACKED:
        return counted(manifest.n, "image", ",")
    return f"{source.width}×{source.height} pixels"
