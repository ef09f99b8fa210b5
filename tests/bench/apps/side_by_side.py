"""
The application bare, bare once more, watched, and behind a middleware that does nothing; the query says which.

All are in one process: ``/ws?bare``.

Two processes that do the same differ by some percent for as long as they live (addresses, hash seeds), and that is as
much as we look for. Serve with ``--interface asgi3``: `app` is no coroutine function, so as to cost next to nothing.
"""

from echo import application, bare, watched


class Nothing:
    """Hands everything on: what any middleware costs."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Hand on."""
        await self.app(scope, receive, send)


behind_nothing = application()
behind_nothing.add_middleware(Nothing)

APPS = {b"bare": bare, b"same": application(), b"ours": watched, b"nothing": behind_nothing}


def app(scope, receive, send):
    """Hand on to one of them; the lifespan to the watched one, so that it watches as it always does."""
    return APPS[scope.get("query_string") or b"ours"](scope, receive, send)
