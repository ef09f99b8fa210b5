"""The example server, with the one route more that tells the tests it is up."""

import os

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from example_app.server import create_app

app = create_app()
app.router.routes.append(Route("/pid", lambda _request: PlainTextResponse(str(os.getpid()))))
