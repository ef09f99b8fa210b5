"""The application of `example`, which protects its task from being scaled in and asks nothing else of AWS."""

import os

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from example_app.server import create_app
from starlette_drain import Drain
from starlette_drain.aws.actions.protection import TaskProtection
from starlette_drain.triggers.sigterm import SigtermTrigger

app = create_app(Drain(triggers=[SigtermTrigger(), TaskProtection(limit=600, sessions=40)]))
app.router.routes.append(Route("/pid", lambda _request: PlainTextResponse(str(os.getpid()))))
