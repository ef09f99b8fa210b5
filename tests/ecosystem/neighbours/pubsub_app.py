"""fastapi-websocket-pubsub with its own client, which comes back by itself."""

import asyncio
from typing import Any

import httpx
from common import answering, say, wrapped
from fastapi import FastAPI
from fastapi_websocket_pubsub import PubSubClient, PubSubEndpoint
from tenacity import wait_fixed


def app() -> Any:
    """Serve one endpoint, and publish on request."""
    site = FastAPI()
    endpoint = PubSubEndpoint()
    endpoint.register_route(site, "/pubsub")

    @site.post("/publish")
    async def publish() -> None:
        await endpoint.publish(["news"], data="something new")

    return answering(wrapped(site))


async def client(url: str) -> None:
    """Subscribe, hear of what is published, and hear again after the connection was lost."""
    news: asyncio.Queue[str] = asyncio.Queue()
    connected: asyncio.Queue[None] = asyncio.Queue()
    lost: asyncio.Queue[None] = asyncio.Queue()

    async def hear(data: str, topic: str) -> None:
        news.put_nowait(data)

    async def on_connect(*_: Any) -> None:
        connected.put_nowait(None)

    async def on_disconnect(*_: Any) -> None:
        lost.put_nowait(None)

    subscriber = PubSubClient(
        ["news"], hear, on_connect=[on_connect], on_disconnect=[on_disconnect], retry_config={"wait": wait_fixed(0.2)}
    )
    async with httpx.AsyncClient(base_url=url, trust_env=False) as publisher:
        subscriber.start_client(f"ws{url.removeprefix('http')}/pubsub")
        await connected.get()
        await publisher.post("/publish")
        say("heard", await news.get())
        say("ready")
        await lost.get()
        say("lost")
        await connected.get()
        await publisher.post("/publish")
        say("heard", await news.get())
