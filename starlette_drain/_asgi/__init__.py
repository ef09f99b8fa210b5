"""The ASGI side of the drain. Only this package imports Starlette."""
