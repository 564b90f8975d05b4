"""Show URLs without their secrets, and find secrets in URLs that will be published."""

import re
from urllib.parse import unquote

HTTP_SCHEMES = ("http", "https")
# pathlib shortens https://host to https:/host. A URL with "…" is already redacted. Punctuation ends a sentence.
_URL = re.compile(r"""[a-z][a-z0-9+.\-]{0,30}:/{1,2}+(?!…)\S+?(?=\?…|['")\]},.;:>]{0,4}(?:\s|$))""", re.IGNORECASE)
_SECRET_NAME = re.compile(  # of a parameter in the query of a URL
    r"(?i)x-(amz|goog|ms|oss)-.*|.*(token|signature|secret|password|passwd|credentials?|session|accessid)|key-pair-id"
    r"|(.*[^a-z])?(sig|key|pass|pwd|auth|sid|jwt)|.*(api|access|account|auth|private)[_-]?key([_-]?id)?"
)


def redact(text: str) -> str:
    """Replace each URL in a message by the result of ``display_url``, and return the message."""
    return _URL.sub(lambda found: display_url(found[0]), text)


def display_url(url: str) -> str:
    """Return a URL without user, password and query, which may be secret. Remove the fragment of an http URL too."""
    scheme, slashes, rest = re.split("(:/{1,2})", url, maxsplit=1)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path_and_query = rest[len(authority) :]
    if "@" in path_and_query and ":" in re.sub(r"^\[.*?\]", "", authority):  # a password may contain a slash
        before, _, host = rest.rpartition("@")
        rest = "…" if re.search("[?#]", before) else f"…@{host}"  # an @ after ? or # may belong to a signature
    else:
        host = re.sub(r":(?!\d*$|PORT$)[^:\]]*$", ":…", authority.rpartition("@")[2])  # a password without its @
        rest = host + re.sub("/[^/:@?#]*:[^/?#]*@", "/…@", path_and_query)  # hf://datasets/user:password@name
    if scheme.lower() in HTTP_SCHEMES:
        rest = rest.partition("#")[0]
    path, query, _ = rest.partition("?")
    return scheme + slashes + path + ("?…" if query else "")


def has_secret(text: str) -> bool:
    """Return whether a URL in a text contains a user, or a query parameter that grants access, such as a token."""
    names = re.findall(r"[?&;#]([^=&;?#\s]*)=", text)
    pages = (re.split("[?#]", found[0])[0] for found in _URL.finditer(text))
    return any(_SECRET_NAME.fullmatch(unquote(n)) for n in names) or any(display_url(page) != page for page in pages)
