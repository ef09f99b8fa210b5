"""The example with OpenTelemetry's Prometheus exporter, which each worker serves on a port of its own."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server
from starlette.routing import Route, WebSocketRoute

from example_app.server import create_app


@asynccontextmanager
async def lifespan(application):
    """Serve the metrics, and tell Prometheus' discovery by files where."""
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    server, _ = start_http_server(0, addr="127.0.0.1")
    found = [{"targets": [f"127.0.0.1:{server.server_port}"], "labels": {"task": os.environ["TASK"]}}]
    path = Path(os.environ["TARGETS"], f"{os.getpid()}.json")
    path.with_suffix(".new").write_text(json.dumps(found))
    path.with_suffix(".new").rename(path)
    yield
    server.shutdown()


async def stubborn(websocket):
    """Do not notice that the client was asked to leave."""
    await websocket.accept()
    await asyncio.sleep(600)


async def slow(websocket):
    """Take long to set up."""
    await asyncio.sleep(3)
    await websocket.accept()
    await websocket.receive()


async def block(request):
    """Block the event loop: what no endpoint should do, and some do."""
    time.sleep(600)  # noqa: ASYNC251 - a worker that hangs


app = create_app()
app.router.lifespan_context = lifespan
app.router.routes += [WebSocketRoute("/stubborn", stubborn), WebSocketRoute("/slow", slow), Route("/block", block)]
