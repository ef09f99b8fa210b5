"""Gradio: a job that reports as it goes, asked for by gradio's own client and in the way of its page in a browser."""

import asyncio
import json
from collections.abc import Iterator
from threading import Barrier
from time import sleep
from typing import Any

import httpx
from common import answering, say, wrapped
from gradio_client import Client


def app() -> Any:
    """Serve a job that counts."""
    import gradio  # noqa: PLC0415 - it takes seconds, and the client does without
    from fastapi import FastAPI  # noqa: PLC0415

    # The long jobs begin to count together, so that neither is over before the drain begins, however busy the machine.
    together = Barrier(2)

    def count(to: float) -> Iterator[str]:
        for number in range(int(to)):
            yield f"at {number}"
            if to > 1 and number == 0:
                together.wait(timeout=60)
            sleep(0.25)
        yield f"counted to {int(to)}"

    interface = gradio.Interface(count, "number", "text", api_name="count").queue(default_concurrency_limit=4)
    return answering(wrapped(gradio.mount_gradio_app(FastAPI(), interface, path="")))


async def client(url: str) -> None:
    """Run one short job and one long one, and follow another as the page does, which says what it accepts."""
    loop = asyncio.get_running_loop()
    counting = [asyncio.Event(), asyncio.Event()]

    def by_client() -> None:
        service = Client(url, verbose=False)
        say("client", "greeted", service.predict(1, api_name="/count"))
        outputs = []
        for output in service.submit(10, api_name="/count"):
            outputs.append(output)
            loop.call_soon_threadsafe(counting[0].set)
        say("client", "answered", len(outputs), outputs[-1])

    async def by_page() -> None:
        async with httpx.AsyncClient(base_url=f"{url}/gradio_api/", timeout=20) as browser:
            config = (await browser.get(f"{url}/config")).json()
            (number,) = (each["id"] for each in config["dependencies"] if each["api_name"] == "count")
            job = {"data": [10], "fn_index": number, "session_hash": "page"}
            (await browser.post("queue/join", json=job)).raise_for_status()
            accept = {"Accept": "text/event-stream"}
            last = None
            async with browser.stream("GET", "queue/data", params={"session_hash": "page"}, headers=accept) as events:
                async for line in events.aiter_lines():
                    if line.startswith("data:"):
                        message = json.loads(line.removeprefix("data:"))["msg"]
                        last = last if message == "close_stream" else message
                        if message == "process_generating":
                            counting[1].set()
            say("page", "answered", last)

    async def tell(name: str, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is told
            say(name, "raised", type(error).__name__)

    jobs = [asyncio.create_task(tell("client", asyncio.to_thread(by_client)))]
    await counting[0].wait()
    jobs.append(asyncio.create_task(tell("page", by_page())))
    await counting[1].wait()
    say("ready")
    await asyncio.gather(*jobs)
