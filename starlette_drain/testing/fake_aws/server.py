"""FakeAWS on a real socket, with uvicorn in a thread."""

import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from starlette_drain.testing.fake_aws.cluster import REGION, FakeTask

if TYPE_CHECKING:
    from starlette_drain.testing.fake_aws.app import FakeAWS

__all__ = ["FakeEndpoint"]

TIMEOUT = 10.0
"""Seconds in which the server must start, and stop."""


class FakeEndpoint:
    """A `FakeAWS` that serves on a free port of 127.0.0.1 during the ``with`` block."""

    def __init__(self, fake: "FakeAWS") -> None:
        self._fake = fake
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The URL that it serves."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, task: FakeTask | None = None) -> dict[str, str]:
        """Return the environment variables of a process that runs as *task*, by default the newest task."""
        environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        task = task or next(reversed(self._fake.tasks), None)
        if task:
            environment["ECS_CONTAINER_METADATA_URI_V4"] = f"{self.url}/v4/{task.id}"
            environment["ECS_AGENT_URI"] = f"{self.url}/api/{task.id}"
            environment["AWS_EXECUTION_ENV"] = f"AWS_ECS_{task.launch_type}"
        return environment

    def __enter__(self) -> Self:
        import uvicorn  # noqa: PLC0415 - needed only for serving

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        started, fake = threading.Event(), self._fake

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started.set()

            async def on_tick(self, counter: int) -> bool:
                fake._tick()
                return await super().on_tick(counter)

        # A call that hangs on purpose must not keep the server from stopping.
        config = uvicorn.Config(
            self._fake,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = Server(config)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="FakeAWS", daemon=True)
        self._thread.start()
        if not started.wait(TIMEOUT):
            msg = "FakeAWS did not start"
            raise RuntimeError(msg)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._thread:
            self._thread.join(TIMEOUT)

    def _run(self, listener: socket.socket) -> None:
        with listener:
            self._server.run(sockets=[listener])
