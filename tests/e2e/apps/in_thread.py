"""uvicorn in a thread, as test suites and desktop programs run it; the main thread ends it on SIGTERM."""

import signal
import sys
import threading

import uvicorn
from endpoint_shapes import starlette_app


class Server(uvicorn.Server):
    """uvicorn in a thread cannot have signal handlers."""

    def install_signal_handlers(self) -> None:
        """Do nothing."""


server = Server(uvicorn.Config(starlette_app, port=int(sys.argv[1])))
thread = threading.Thread(target=server.run)
signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
thread.start()
thread.join()
