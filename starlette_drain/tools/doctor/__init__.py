"""``starlette-drain doctor``: checks a set-up before a drain."""
