"""How many files, and so how many connections, a process may have open."""

import resource

__all__ = ["raise_file_limit"]

OF_ITS_OWN = 100
"""Files that a process needs besides its connections."""

OPEN_MAX = 10_240
"""What macOS allows a process where it says that there is no limit."""


def raise_file_limit() -> int:
    """Let us and our children open as many files as the system allows; return how many connections that makes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, OPEN_MAX) if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - OF_ITS_OWN
