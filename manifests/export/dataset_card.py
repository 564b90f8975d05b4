"""Write the dataset card of a set: ``README.md`` with the metadata header that the Hugging Face Hub reads.

Names, licenses and links in a manifest are untrusted. A card shows them as plain text.

Sources: the Hub's documentation, "Dataset cards" and "Licenses"; creativecommons.org for URLs of licenses.
"""

import hashlib
import re
from typing import Any
from urllib.parse import quote

import jinja2
import yaml

from manifests.format.schema import PACKED, Manifest, Source
from manifests.support.counts import counted

CARD_NAME = "README.md"
MAX_LETTERS = 300
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@:]|(?<=www)\.)", re.IGNORECASE)
"""Special characters in a line of Markdown. A colon and www. would turn addresses into links."""
_SEAL = re.compile(rb"\n<!-- patchset card ([0-9a-f]{64}) -->\n\Z")
_HUB_LICENSES = {  # the Hub's identifiers of usual licenses of photos
    *("apache-2.0", "mit", "odbl", "pddl", "gpl-3.0", "bsd-3-clause", "unlicense", "wtfpl", "cc", "cc0-1.0"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
}
_LINK = re.compile(r"https?://[\w.-]{1,250}(:\d{1,5})?([/?#][\w./~%?=&#:@!$*+,;()'-]{0,1000})?", re.ASCII)
_DEED = re.compile(r"(?i)https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(/[\w.-]*)*")
_CC = re.compile(r"cc-(by|by-sa|by-nc|by-nd|by-nc-sa|by-nc-nd)-([1-4]\.[05])")
_ZERO = "cc0-1.0"


def make_card(manifest: Manifest) -> bytes:
    """Return the dataset card of a set as bytes. The last line contains a digest, which ``is_unedited`` checks."""
    header = yaml.safe_dump(_metadata(manifest), sort_keys=False, allow_unicode=False)
    text = f"---\n{header}---\n\n{_body(manifest)}".encode()
    return text + b"\n<!-- patchset card %s -->\n" % hashlib.sha256(text).hexdigest().encode()


def is_unedited(card: bytes) -> bool:
    """Return whether a card is unchanged since ``make_card`` wrote it. Do not check which set the card describes."""
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
    """Return a text such as ``9 images`` for a set packed from a folder, else ``640×480 pixels`` for ``source``."""
    if manifest.recipe.get("name") == PACKED:
        return counted(manifest.n, "image", ",")
    return f"{source.width}×{source.height} pixels"


def link_of(text: str | None) -> str | None:
    """Escape non-ASCII letters in the path of an http URL. Return None if ``text`` is no valid http URL."""
    if text is None or not text.isprintable():
        return None
    scheme, sep, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    link = scheme + sep + host + slash + re.sub(r"[^\x00-\x7f]+", lambda match: quote(match[0]), path)
    return link if _LINK.fullmatch(link) else None


def identifier(text: str) -> str:
    """Return the Hub's identifier of a license, such as ``cc-by-4.0``. ``text`` is a name or a Creative Commons URL.

    For the name of an unknown license, return the words of the name in lower case, joined by dashes.
    """
    if deed := _DEED.fullmatch(text.strip()):
        _, name, version = deed.groups()[:3]
        return f"cc0-{version}" if name.lower() == "zero" else f"cc-{name.lower()}-{version}"
    words = text.lower().replace("creative commons", "cc").replace("cc 0", "cc0").split()
    name = "-".join(word for word in words if word not in ("international", "universal"))
    return _ZERO if name == "cc0" else name


def license_link(text: str) -> str | None:
    """Return the URL of the license ``text``, or None if ``text`` is no Creative Commons license and no URL."""
    name = identifier(text)
    if name == _ZERO:
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if match := _CC.fullmatch(name):
        return f"https://creativecommons.org/licenses/{match[1]}/{match[2]}/"
    return link_of(text.strip())


def hub_license(manifest: Manifest) -> dict[str, str]:
    """Return the license of the photos as keys and values for the metadata header of a dataset card."""
    licenses = {source.licence for source in manifest.sources}
    if len(licenses) > 1 and all(licenses):
        return {"license": "other", "license_name": "several"}
    text = licenses.pop()
    if text is None or licenses:
        return {"license": "unknown"}
    name = identifier(text)
    if name in _HUB_LICENSES:
        return {"license": name}
    link = license_link(text)
    short = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")[:64].rstrip("-.")
    known = {"license_name": short} if short and "://" not in name else {}
    return {"license": "other"} | known | ({"license_link": link} if link else {})
