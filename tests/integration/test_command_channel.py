"""The way over HTTP that the commands take to a task, with real sockets."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from starlette_drain.tools.doctor.inside import ask_process
from starlette_drain.tools.tasks.channel import HttpChannel, NotListening, Refused, Stuck

TOKEN = "a-token-of-the-tests"


@contextmanager
def listening(location=None, body=b""):
    """Serve what notes the tokens that it is shown, and sends on to *location*, or answers 404 with *body*."""
    tokens = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            tokens.append(self.headers["Authorization"])
            self.send_response(302 if location else 404)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/drain", tokens
        finally:
            server.shutdown()
            thread.join()


def test_the_token_is_taken_to_no_other_address():
    """A redirect is reported, and not followed."""
    with listening() as (elsewhere, shown), listening(elsewhere) as (url, tokens):
        with pytest.raises(Refused, match="302: it redirects"):
            HttpChannel(url, TOKEN).ask("GET")
        assert tokens == [f"Bearer {TOKEN}"]
        assert shown == []


@pytest.mark.anyio
async def test_nor_does_the_doctor_take_it_there():
    """It asks as the other commands do."""
    with listening() as (elsewhere, shown), listening(elsewhere) as (url, _):
        answer = await ask_process([url], TOKEN)
        assert "redirects" in answer.why_not
        assert shown == []


@pytest.mark.parametrize("body", [b"", b"Not Found", b'{"detail":"Not Found"}', b'"not here"'])
def test_an_application_without_an_admin_route(body):
    """Its own 404 is told as what it means, whatever is in it."""
    with listening(body=body) as (url, _), pytest.raises(Refused, match=r"404: no admin route is there. Set DRAIN_"):
        HttpChannel(url, TOKEN).ask("GET")


def test_a_closed_port_and_a_process_that_hangs():
    """Neither means that there is no route; only the first may be a server that starts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Stuck, match=r"accepts the connection, but does not answer within 0.1 s"):
            HttpChannel(url, TOKEN, 0.1).ask("GET")
    with pytest.raises(NotListening, match="nothing listens there"):
        HttpChannel(url, TOKEN).ask("GET")
