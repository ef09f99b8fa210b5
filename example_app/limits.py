"""The limit of open files, and so of connections, of a process."""

import resource

__all__ = ["raise_file_limit"]

OTHER_FILES = 100
"""Open files that a process needs besides its connections."""

OPEN_MAX = 10_240
"""The limit of macOS if it reports none."""


def raise_file_limit() -> int:
    """Raise our soft limit to the hard one, also for child processes; return how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, OPEN_MAX) if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - OTHER_FILES
