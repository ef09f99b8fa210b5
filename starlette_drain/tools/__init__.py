"""The `starlette-drain` command."""
