"""
One application per framework, as its users write them: a factory each, for ``uvicorn --factory``.

Each has an endpoint that echoes and one that ticks without listening, as far as the framework knows such a thing.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from starlette_drain import DrainMiddleware

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("frameworks")
TICK = 0.02


def answering(app: ASGIApp) -> ASGIApp:
    """Let *app* answer at ``/pid``, where the tests knock until it is there."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/pid":
            headers = [(b"content-length", str(len(body := str(os.getpid()).encode())).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return answer


def starlette() -> ASGIApp:
    """Make a Starlette application."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async def ticks(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(TICK)

    routes = [WebSocketRoute("/echo", echo), WebSocketRoute("/ticks", ticks)]
    return answering(Starlette(routes=routes, middleware=[Middleware(DrainMiddleware)]))


def fastapi() -> ASGIApp:
    """Make a FastAPI application; one endpoint has a dependency with a clean-up."""
    from typing import Annotated  # noqa: PLC0415

    from fastapi import Depends, FastAPI  # noqa: PLC0415
    from fastapi import WebSocket as Socket  # noqa: PLC0415

    app = FastAPI()
    app.add_middleware(DrainMiddleware)

    async def resource() -> AsyncIterator[str]:
        try:
            yield "tick"
        finally:
            logger.info("resource given back")

    @app.websocket("/echo")
    async def echo(websocket: Socket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    @app.websocket("/ticks")
    async def ticks(websocket: Socket, text: Annotated[str, Depends(resource)]) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(text)
            await asyncio.sleep(TICK)

    return answering(app)


def bare() -> ASGIApp:
    """Make an application of no framework."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError(scope["type"])  # how an application says that it has no lifespan
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        if scope["path"] == "/echo":
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            logger.info("the application saw %s", message)
        else:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(TICK)

    return answering(DrainMiddleware(app))


def channels() -> ASGIApp:
    """Make a Django application with Channels; one consumer runs in a thread, one belongs to a group."""
    import django  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415

    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.configure(SECRET_KEY="x" * 50, CHANNEL_LAYERS=layers, ALLOWED_HOSTS=["*"], USE_TZ=True)
    django.setup()

    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: PLC0415
    from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: PLC0415
    from django.core.asgi import get_asgi_application  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    class Echo(WebsocketConsumer):
        def receive(self, text_data=None, bytes_data=None):  # noqa: ARG002
            self.send(text_data=text_data)

    class Ticks(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await self.channel_layer.group_add("everybody", self.channel_name)
            await self.tick({})

        async def disconnect(self, code):  # noqa: ARG002
            await self.channel_layer.group_discard("everybody", self.channel_name)

        async def tick(self, _event):
            await self.send(text_data="tick")
            await asyncio.sleep(TICK)
            await self.channel_layer.send(self.channel_name, {"type": "tick"})

    consumers = URLRouter([path("echo", Echo.as_asgi()), path("ticks", Ticks.as_asgi())])
    app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": consumers})
    return answering(DrainMiddleware(app))


def litestar() -> ASGIApp:
    """Make a Litestar application: a listener and a stream."""
    from litestar import Litestar, websocket, websocket_listener, websocket_stream  # noqa: PLC0415
    from litestar import WebSocket as Socket  # noqa: PLC0415

    @websocket_listener("/echo")
    async def echo(data: str) -> str:
        return data

    @websocket_stream("/ticks", listen_for_disconnect=False)
    async def ticks() -> AsyncGenerator[str, None]:
        while True:
            yield "tick"
            await asyncio.sleep(TICK)

    @websocket("/loop")
    async def loop(socket: Socket) -> None:
        await socket.accept()
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(TICK)

    return answering(DrainMiddleware(Litestar([echo, ticks, loop], openapi_config=None)))


def quart() -> ASGIApp:
    """Make a Quart application."""
    from quart import Quart, websocket  # noqa: PLC0415

    app = Quart("frameworks")

    @app.websocket("/echo")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/ticks")
    async def ticks() -> None:
        while True:
            await websocket.send("tick")
            await asyncio.sleep(TICK)

    return answering(DrainMiddleware(app))


def socketio() -> ASGIApp:
    """Make a Socket.IO application."""
    from socketio import ASGIApp as SocketIO  # noqa: PLC0415
    from socketio import AsyncServer  # noqa: PLC0415

    server = AsyncServer(async_mode="asgi")

    @server.event
    async def echo(sid: str, data: str) -> str:
        return data

    @server.event
    async def connect(sid: str, environ: dict[str, str]) -> None:
        async def tick() -> None:
            while True:
                await server.emit("tick", to=sid)
                await asyncio.sleep(TICK)

        if "ticks" in environ["QUERY_STRING"]:
            server.start_background_task(tick)

    @server.event
    async def disconnect(sid: str, reason: str) -> None:
        logger.info("the application saw %s", reason)

    return answering(DrainMiddleware(SocketIO(server)))


def strawberry() -> ASGIApp:
    """Make a GraphQL application with a subscription, in strawberry."""
    import strawberry as graphql  # noqa: PLC0415
    from strawberry.asgi import GraphQL  # noqa: PLC0415

    @graphql.type
    class Query:
        hello: str = "world"

    @graphql.type
    class Subscription:
        @graphql.subscription
        async def ticks(self) -> AsyncIterator[str]:
            while True:
                yield "tick"
                await asyncio.sleep(TICK)

    schema = graphql.Schema(Query, subscription=Subscription)
    return answering(DrainMiddleware(GraphQL(schema)))
