"""Write numbers with nouns, such as ``3 patches``, for messages."""


def counted(count: int, noun: str, spec: str = "") -> str:
    """Return a number with a noun in singular or plural, such as ``3 patches``. ``spec`` formats the number."""
    if count == 1:
        plural = noun
    elif noun.endswith(("s", "x", "ch", "sh")):
        plural = f"{noun}es"
    elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
        plural = f"{noun[:-1]}ies"
    else:
        plural = f"{noun}s"
    return f"{count:{spec}} {plural}"
