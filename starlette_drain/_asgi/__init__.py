"""The top floor: where the drain meets ASGI, and the only importer of Starlette."""
