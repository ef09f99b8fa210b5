"""What a process knows of how it will be stopped."""

import asyncio
import logging
import signal
import sys
from types import SimpleNamespace

import pytest

from starlette_drain._asgi import process as module
from starlette_drain._asgi.process import Process, ProcessCheck, ancestors, program_of, stop_problems

ECS = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}


@pytest.fixture
def table(tmp_path):
    """Return what makes a process table of (pid, parent, session, command line)."""

    def make(*processes):
        for pid, parent, session, line in processes:
            folder = tmp_path / str(pid)
            folder.mkdir()
            (folder / "cmdline").write_bytes("\0".join(line.split()).encode())
            (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} {pid} {session} 0", encoding="utf-8")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("uvicorn app:app", "uvicorn"),
        ("/usr/local/bin/python3.12 -m uvicorn app:app", "uvicorn"),
        ("python -X dev -W error /venv/bin/gunicorn app:app", "gunicorn"),
        ("python -c code", "python"),
        ("/sbin/docker-init -- uvicorn", "docker-init"),
        ("nginx: worker", "nginx"),
        ("python", "python"),
        ("", ""),
    ],
)
def test_the_name_of_a_program(line, program):
    """Of Python it is the module or the script."""
    assert program_of(line.split()) == program


@pytest.mark.parametrize(
    ("processes", "above", "is_whole"),
    [
        ([(1, 0, 1, "uvicorn app:app")], [], True),
        ([(1, 0, 1, "sh /start.sh"), (7, 1, 1, "uvicorn")], [1], True),
        ([(1, 0, 1, "tini -- uvicorn"), (7, 1, 1, "uvicorn"), (9, 7, 1, "python -c spawn")], [1, 7], True),
        ([(1, 0, 1, "dumb-init uvicorn"), (7, 1, 7, "uvicorn")], [1], True),
        ([(1, 0, 1, "agent"), (5, 1, 5, "bash"), (7, 5, 5, "uvicorn")], [5], False),
        ([(1, 0, 1, "agent"), (5, 1, 5, "bash"), (7, 5, 7, "uvicorn")], [], False),
        ([(1, 0, 1, "/pause"), (7, 0, 7, "uvicorn")], [], False),
    ],
)
def test_the_processes_above(table, processes, above, is_whole):
    """Up to the container's first one, but not out of a session that somebody opened."""
    assert ancestors(processes[-1][0], table(*processes)) == (above, is_whole)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parents": ("sh",)}, ["unsafe: a shell (sh) runs the server"]),
        ({"parents": ("tini", "bash")}, ["unsafe: a shell (bash) runs the server"]),
        ({"parents": ("supervisord",)}, ["note: supervisord runs the server and may not pass"]),
        ({"parents": ("npm", "sh"), "is_whole": False}, []),
        ({"parents": ("docker-init", "gunicorn")}, []),
        ({"options": {"limit_max_requests": 100}}, ["unsafe: a limit on requests (limit_max_requests=100)"]),
        ({"options": {"limit_max_requests": sys.maxsize}}, []),
        ({"options": {"reload": True}}, ["unsafe: --reload"]),
        ({"options": {"lifespan": "off"}}, ["note: lifespan=off"]),
        ({"options": {"timeout_graceful_shutdown": None}}, ["note: without timeout_graceful_shutdown"]),
    ],
)
def test_what_will_go_wrong(given, words):
    """Each is named, and what is usual is not."""
    sound = {"lifespan": "auto", "limit_max_requests": None, "reload": False, "timeout_graceful_shutdown": 5}
    options = {**sound, **given.pop("options", {})}
    found = Process(**{"pid": 7, "is_whole": True, "server": "uvicorn", "options": options, **given})
    told = [f"{each.level}: {each.problem}" for each in stop_problems(found)]
    assert len(told) == len(words)
    assert all(told[number].startswith(each) for number, each in enumerate(words))
    assert all(each.remedy for each in stop_problems(found))


class Server:
    """A server as it shows itself in its signal handler."""

    __module__ = "uvicorn.server"
    should_exit = False
    config = SimpleNamespace(limit_max_requests=9, lifespan="on", reload=False, timeout_graceful_shutdown=5, ws=object)

    def handle_exit(self, *_):
        """Handle a signal."""


async def checked(check):
    """Let it look, and return what it shows."""
    watching = asyncio.ensure_future(check.watch(None))
    await asyncio.sleep(0)
    watching.cancel()
    return check.status(0.0)


@pytest.mark.anyio
async def test_the_check(caplog, monkeypatch):
    """It shows the server's real configuration, warns of what is unsafe; one of the workers does."""
    monkeypatch.setattr(module, "ancestors", lambda *_: ([1], True))
    monkeypatch.setattr(module, "words_of", lambda *_: ("sh", "-c", "secret=1 uvicorn"))
    monkeypatch.setattr(signal, "getsignal", lambda _: Server().handle_exit)
    assert ProcessCheck(lambda: True, environ=ECS).status(0.0) == {}
    with caplog.at_level(logging.WARNING, "starlette_drain"):
        shown = await checked(ProcessCheck(lambda: True, environ=ECS))
    assert shown["server"] == "uvicorn"
    assert shown["options"] == {
        "limit_max_requests": 9,
        "lifespan": "on",
        "reload": False,
        "timeout_graceful_shutdown": 5,
    }
    assert shown["parents"] == ("sh",)
    assert [each["level"] for each in shown["problems"]] == ["unsafe", "unsafe"]
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "This process will not stop properly"
    ] * 2
    assert "secret" not in f"{shown}{caplog.text}"
    caplog.clear()
    await checked(ProcessCheck(lambda: False, environ=ECS))
    assert caplog.records == []


@pytest.mark.anyio
@pytest.mark.parametrize(("holds_sigterm", "problems"), [(False, ["a limit"]), (True, ["a limit", "a shell"])])
async def test_the_check_off_ecs(monkeypatch, holds_sigterm, problems):
    """A limit on requests cuts all sessions anywhere; a shell is usual at a terminal, unless SIGTERM is to be held."""
    monkeypatch.setattr(module, "ancestors", lambda *_: ([1], True))
    monkeypatch.setattr(module, "words_of", lambda *_: ("sh", "-c", "uvicorn"))
    monkeypatch.setattr(signal, "getsignal", lambda _: Server().handle_exit)
    shown = await checked(ProcessCheck(lambda: True, holds_sigterm=holds_sigterm, environ={}))
    assert [each["problem"][:7] for each in shown["problems"]] == problems
