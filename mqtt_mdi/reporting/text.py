"""Words of strangers, made safe to show."""


def printable(text: str) -> str:
    """Text without what a terminal would obey and a page must not hold; lines stay lines."""
    return "\n".join(
        "".join(letter if letter.isprintable() else "?" for letter in line) for line in text.split("\n")
    )


def one_line(text: str) -> str:
    """The same, in one line."""
    return printable(text).replace("\n", "?")
