"""Django with Channels: a consumer of each kind, and event streams of Channels and of Django itself."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
from common import answering, say, wrapped
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

logger = logging.getLogger("uvicorn.error")


def app() -> Any:
    """Serve two consumers and two streams."""
    import django  # noqa: PLC0415 - it wants its settings first
    from django.conf import settings  # noqa: PLC0415

    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.configure(
        SECRET_KEY="x" * 50, CHANNEL_LAYERS=layers, ALLOWED_HOSTS=["*"], USE_TZ=True, ROOT_URLCONF=__name__
    )
    django.setup()

    from channels.generic.http import AsyncHttpConsumer  # noqa: PLC0415
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: PLC0415
    from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: PLC0415
    from django.core.asgi import get_asgi_application  # noqa: PLC0415
    from django.urls import path, re_path  # noqa: PLC0415

    class Echo(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:  # noqa: ARG002
            self.send(text_data=text_data)

        def disconnect(self, code: int) -> None:
            logger.info("the application saw %s", code)

    class Ticks(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.tick({})

        async def tick(self, _event: Any) -> None:
            await self.send(text_data="tick")
            await asyncio.sleep(0.02)
            await self.channel_layer.send(self.channel_name, {"type": "tick"})

    class Stream(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:  # noqa: ARG002
            await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
            while True:
                await self.send_body(b"data: tick\n\n", more_body=True)
                await asyncio.sleep(0.1)

        async def disconnect(self) -> None:
            logger.info("the application saw the end of the stream")

    consumers = URLRouter([path("echo", Echo.as_asgi()), path("ticks", Ticks.as_asgi())])
    views = URLRouter([path("stream", Stream.as_asgi()), re_path("", get_asgi_application())])
    return answering(wrapped(ProtocolTypeRouter({"http": views, "websocket": consumers})))


async def ticks() -> AsyncIterator[str]:
    """Tick."""
    while True:
        yield "data: tick\n\n"
        await asyncio.sleep(0.1)


def __getattr__(name: str) -> Any:
    """Be the URLs of the application, once its settings are there."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.http import HttpRequest, StreamingHttpResponse  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415

    async def django_stream(_request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(ticks(), content_type="text/event-stream")

    return [path("django", django_stream)]


async def client(url: str) -> None:
    """Open one of each, and tell how it ends."""
    hearing = asyncio.Semaphore(0)

    async def follow_socket(name: str) -> None:
        async with connect(f"ws{url.removeprefix('http')}/{name}", proxy=None) as socket:
            await socket.send("hello")
            say(name, "greeted", await socket.recv())
            hearing.release()
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass
            say(name, "closed", socket.close_code)

    async def follow_stream(name: str) -> None:
        end = "complete"
        try:
            async with (
                httpx.AsyncClient(timeout=20) as browser,
                browser.stream("GET", f"{url}/{name}", headers={"Accept": "text/event-stream"}) as events,
            ):
                lines = events.aiter_lines()
                say(name, "greeted", await anext(lines))
                hearing.release()
                async for _ in lines:
                    pass
        except httpx.TransportError as error:
            end = type(error).__name__
        say(name, "ended", end)

    following = [asyncio.create_task(follow_socket(name)) for name in ("echo", "ticks")]
    following += [asyncio.create_task(follow_stream(name)) for name in ("stream", "django")]
    for _ in following:
        await hearing.acquire()
    say("ready")
    await asyncio.gather(*following)
