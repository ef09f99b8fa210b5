"""``starlette-drain rehearse``: the user's own application leaves, as on ECS, on this machine."""
