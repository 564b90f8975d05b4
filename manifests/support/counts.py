"""Counts of things in messages."""


def counted(count: int, what: str, spec: str = "") -> str:
    """Return so many of a thing, by its name in the singular: ``1 shard``, ``2 shards``, ``3 patches``.

    ``spec`` is a format of the number, such as ``,``.
    """
    return f"{count:{spec}} {what if count == 1 else plural(what)}"


def plural(what: str) -> str:
    """Return the plural of an English noun, or of a phrase that ends in one: patches, classes, entries, shards."""
    if what.endswith(("s", "x", "ch", "sh")):
        return f"{what}es"
    if what.endswith("y") and what[-2:-1] not in "aeiou":
        return f"{what[:-1]}ies"
    return f"{what}s"
