"""The MCP SDK of the second generation: one tool call over each of its two HTTP transports."""

import asyncio
from typing import Any

from common import answering, say, wrapped
from mcp import Client
from mcp.client.sse import sse_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context


def app() -> Any:
    """Serve a tool that takes a while, at ``/mcp`` and at ``/sse``."""
    server = MCPServer("neighbours")

    @server.tool()
    async def count(to: int, context: Context) -> str:
        for number in range(to):
            await context.report_progress(number, to)
            await asyncio.sleep(0.25)
        return f"counted to {to}"

    site = server.streamable_http_app()
    site.router.routes.extend(server.sse_app().routes)
    return answering(wrapped(site))


async def client(url: str) -> None:
    """Call the tool once for the greeting, and then again, for longer, over both transports."""
    counting = [asyncio.Event(), asyncio.Event()]

    async def call(name: str, transport: Any, begun: asyncio.Event) -> None:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            begun.set()

        try:
            async with Client(transport) as session:
                say(name, "greeted", (await session.call_tool("count", {"to": 1})).content[0].text)
                async with asyncio.timeout(12):
                    result = await session.call_tool("count", {"to": 10}, progress_callback=progress)
                say(name, "answered", result.content[0].text)
        except TimeoutError:
            say(name, "hung")
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            say(name, "raised", type(error).__name__)

    calls = [
        asyncio.create_task(call("streamable", f"{url}/mcp", counting[0])),
        asyncio.create_task(call("sse", sse_client(f"{url}/sse"), counting[1])),
    ]
    for each in counting:
        await each.wait()
    say("ready")
    await asyncio.gather(*calls)
