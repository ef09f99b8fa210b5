"""Makes untrusted text safe for a log line."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """
    Return *text* with its control characters, line breaks and invisible characters escaped.

    Paths come from clients and messages from AWS: unescaped, they could forge log lines or send terminal escapes.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
