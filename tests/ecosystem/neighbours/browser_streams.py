"""What two clients of Node's ask for: an event stream in the way of a browser, and a GraphQL subscription over SSE."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import strawberry
from common import answering, wrapped
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


@strawberry.type
class Query:
    """A schema needs one."""

    hello: str = "world"


@strawberry.type
class Subscription:
    """What is subscribed to."""

    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        """Count."""
        for number in range(to):
            yield number
            await asyncio.sleep(0.1)


SCHEMA = strawberry.Schema(Query, subscription=Subscription)


async def graphql(request: Request) -> StreamingResponse:
    """Answer in the "distinct connections mode" of the GraphQL over SSE protocol."""
    asked = await request.json()

    async def results() -> AsyncIterator[str]:
        async for result in await SCHEMA.subscribe(asked["query"], variable_values=asked.get("variables")):
            yield f"event: next\ndata: {json.dumps({'data': result.data})}\n\n"
        yield "event: complete\ndata:\n\n"

    return StreamingResponse(results(), media_type="text/event-stream")


async def events(_request: Request) -> StreamingResponse:
    """Tick without end."""

    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


def app() -> Any:
    """Serve both."""
    routes = [Route("/graphql", graphql, methods=["POST"]), Route("/events", events)]
    return answering(wrapped(Starlette(routes=routes)))
