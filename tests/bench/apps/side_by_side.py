"""
The application bare, bare once more, and watched, in one process; the query says which: ``/ws?bare``.

Two processes that do the same differ by some percent for as long as they live (addresses, hash seeds), and that is as
much as we look for. Serve with ``--interface asgi3``: `app` is no coroutine function, so as to cost next to nothing.
"""

from echo import application, bare, watched

APPS = {b"bare": bare, b"same": application(), b"ours": watched}


def app(scope, receive, send):
    """Hand on to one of the three; the lifespan to the watched one, so that it watches as it always does."""
    return APPS[scope.get("query_string") or b"ours"](scope, receive, send)
