"""Text from outside, made safe for a line of a log."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """
    Return *text* with its control characters, line breaks and invisible characters escaped.

    A client chooses its path and AWS its messages: as they are, they could forge lines or send terminal escapes.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
