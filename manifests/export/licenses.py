"""Write the licenses of a set's photos in the form of the Hugging Face Hub and of Croissant, and recognize links.

Sources: the Hub's documentation, "Licenses" and "Dataset cards"; creativecommons.org for its deeds.
"""

import re
from urllib.parse import quote

from manifests.format.schema import Manifest

_HUB_LICENSES = {  # the Hub's identifiers of usual licenses of photos
    *("apache-2.0", "mit", "odbl", "pddl", "gpl-3.0", "bsd-3-clause", "unlicense", "wtfpl", "cc", "cc0-1.0"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
}
_LINK = re.compile(r"https?://[\w.-]{1,250}(:\d{1,5})?([/?#][\w./~%?=&#:@!$*+,;()'-]{0,1000})?", re.ASCII)
_DEED = re.compile(
    r"https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(/[\w.-]*)*", re.IGNORECASE
)
_CC = re.compile(r"cc-(by|by-sa|by-nc|by-nd|by-nc-sa|by-nc-nd)-([1-4]\.[05])")
_ZERO = "cc0-1.0"


def link_of(text: str | None) -> str | None:
    """Return a URL with its non-ASCII letters escaped. Return None if ``text`` is not a URL."""
    if text is None or not text.isprintable():
        return None
    scheme, sep, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    link = scheme + sep + host + slash + re.sub(r"[^\x00-\x7f]+", lambda match: quote(match[0]), path)
    return link if _LINK.fullmatch(link) else None


def identifier(text: str) -> str:
    """Return the Hub's identifier of a license: ``cc-by-4.0`` for "CC BY 4.0 International" or the deed's address.

    For other texts the result is the words in lower case, joined by dashes.
    """
    if deed := _DEED.fullmatch(text.strip()):
        _, name, version = deed.groups()[:3]
        return f"cc0-{version}" if name.lower() == "zero" else f"cc-{name.lower()}-{version}"
    words = text.lower().replace("creative commons", "cc").replace("cc 0", "cc0").split()
    name = "-".join(word for word in words if word not in ("international", "universal"))
    return _ZERO if name == "cc0" else name


def license_link(text: str) -> str | None:
    """Return the address of a license. Return None if ``text`` is neither a Creative Commons license nor a URL."""
    name = identifier(text)
    if name == _ZERO:
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if match := _CC.fullmatch(name):
        return f"https://creativecommons.org/licenses/{match[1]}/{match[2]}/"
    return link_of(text.strip())


def hub_license(manifest: Manifest) -> dict[str, str]:
    """Return the license of the set's photos as keys for the header of a dataset card."""
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
