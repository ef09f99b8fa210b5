"""``starlette-drain rehearse``: drains the user's own application on this machine, as on ECS."""
