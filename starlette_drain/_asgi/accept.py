"""What a request accepts."""

import re

__all__ = ["accepts"]

NOT_ACCEPTABLE = re.compile(rb"q\s*=\s*0(\.0*)?")
"""A weight of 0, which refuses a media type (RFC 9110 section 12.4.2)."""


def accepts(accept: bytes, media_type: bytes) -> bool:
    """Return whether an Accept header names *media_type*; ``*/*`` does not count: plain HTTP clients send it."""
    for media_range in accept.lower().split(b","):
        its_type, *parameters = (part.strip() for part in media_range.split(b";"))
        if its_type == media_type:
            return not any(NOT_ACCEPTABLE.fullmatch(parameter) for parameter in parameters)
    return False
