"""Write counts of things in messages."""


def counted(count: int, noun: str, spec: str = "") -> str:
    """Return a number and its noun, singular or plural: ``1 shard``, ``3 patches``; ``spec`` formats the number."""
    return f"{count:{spec}} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of an English noun, or of a phrase that ends in one: patches, classes, entries, shards."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
