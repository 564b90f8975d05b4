"""What may be done with a set's photos, as the hub and Croissant write it, and which texts are links.

Sources: the Hugging Face hub's documentation, "Licenses" and "Dataset cards"; creativecommons.org for its deeds.
"""

import re
from urllib.parse import quote

from manifests.format.schema import Manifest

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

_LINK = re.compile(r"https?://[\w.-]{1,250}(:\d{1,5})?([/?#][\w./~%?=&#:@!$*+,;()'-]{0,1000})?", re.ASCII)
_DEED = re.compile(
    r"https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(/[\w.-]*)*", re.IGNORECASE
)
_CC = re.compile(r"cc-(by|by-sa|by-nc|by-nd|by-nc-sa|by-nc-nd)-([1-4]\.[05])")
_ZERO = "cc0-1.0"


def licence_of(manifest: Manifest) -> str | None:
    """The one licence of all photos, or None where one has none or they differ."""
    licences = {source.licence for source in manifest.sources}
    return licences.pop() if len(licences) == 1 else None


def link_of(text: str | None) -> str | None:
    """A text that is an address of the web and nothing else, with letters beyond ASCII written out; else None."""
    if text is None or not text.isprintable():
        return None
    scheme, sep, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    written = scheme + sep + host + slash + re.sub(r"[^\x00-\x7f]+", lambda match: quote(match[0]), path)
    return written if _LINK.fullmatch(written) else None


def identifier(licence: str) -> str:
    """A licence as the hub would write it: ``cc-by-4.0`` for 'CC BY 4.0 International', or for its deed's address.

    Of other texts their words in small letters, joined by dashes.
    """
    if deed := _DEED.fullmatch(licence.strip()):
        _, name, version = deed.groups()[:3]
        return f"cc0-{version}" if name.lower() == "zero" else f"cc-{name.lower()}-{version}"
    words = licence.lower().replace("creative commons", "cc").replace("cc 0", "cc0").split()
    name = "-".join(word for word in words if word not in ("international", "universal"))
    return _ZERO if name == "cc0" else name


def licence_link(licence: str) -> str | None:
    """Where a licence can be read: the address that it is, or that of a Creative Commons deed; else None."""
    name = identifier(licence)
    if name == _ZERO:
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if match := _CC.fullmatch(name):
        return f"https://creativecommons.org/licenses/{match[1]}/{match[2]}/"
    return link_of(licence.strip())


def hub_licence(manifest: Manifest) -> dict[str, str]:
    """The keys of a card's header that say under what licence a set is."""
    licence = licence_of(manifest)
    if licence is None:
        known_all = all(source.licence for source in manifest.sources)
        return {"license": "other", "license_name": "several"} if known_all else {"license": "unknown"}
    name = identifier(licence)
    if name in _LICENCES:
        return {"license": name}
    link = licence_link(licence)
    short = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")[:64].rstrip("-.")
    known = {"license_name": short} if short and "://" not in name else {}
    return {"license": "other"} | known | ({"license_link": link} if link else {})
