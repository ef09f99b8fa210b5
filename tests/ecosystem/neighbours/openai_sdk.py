"""The client of OpenAI: an answer that comes token by token."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from common import answering, say, wrapped
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta


def app() -> Any:
    """Serve completions as a server of language models does."""
    site = FastAPI()

    @site.post("/v1/chat/completions")
    async def complete(request: Request) -> StreamingResponse:
        many = (await request.json())["max_tokens"]

        async def tokens() -> AsyncIterator[str]:
            for number in range(many + 1):
                end = "stop" if number == many else None
                choice = Choice(index=0, delta=ChoiceDelta(content=None if end else "token "), finish_reason=end)
                chunk = ChatCompletionChunk(
                    id="1", choices=[choice], created=1, model="none", object="chat.completion.chunk"
                )
                yield f"data: {chunk.model_dump_json()}\n\n"
                await asyncio.sleep(0.1)
            yield "data: [DONE]\n\n"

        return StreamingResponse(tokens(), media_type="text/event-stream")

    return answering(wrapped(site))


async def client(url: str) -> None:
    """Read one short answer and one long one."""
    service = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    for many in (2, 25):
        heard, end = 0, None
        try:
            stream = await service.chat.completions.create(
                model="none", messages=[{"role": "user", "content": "count"}], max_tokens=many, stream=True
            )
            async for chunk in stream:
                heard += bool(chunk.choices[0].delta.content)
                end = chunk.choices[0].finish_reason
                if heard == 3:
                    say("ready")
        except OpenAIError as error:
            end = type(error).__name__
        say("answered", heard, end)
