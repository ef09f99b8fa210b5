"""What is read from a server's command line."""

import pytest

from starlette_drain.tools.doctor.record import SetUp
from starlette_drain.tools.doctor.server_checks import check_server
from starlette_drain.tools.doctor.server_command import ServerCommand

SHELL = "a shell runs the server"


def is_shell_found(*words, is_process=True):
    """Return whether the doctor says that a shell keeps SIGTERM to itself."""
    found = SetUp(command=words, is_process=is_process)
    return any(SHELL in each.found and each.level == "unsafe" for each in check_server(found))


@pytest.mark.parametrize(
    "words",
    [
        ("/bin/sh", "/entrypoint.sh"),
        ("bash", "/start.sh", "uvicorn", "app:app"),
        ("bash", "-lc", "uvicorn app:app"),
        ("sh", "-ec", "uvicorn app:app"),
        ("sh", "-ce", "uvicorn app:app"),
        ("sh", "-e", "-c", "uvicorn app:app"),
        ("bash", "-euo", "pipefail", "-c", "uvicorn app:app"),
        ("docker-init", "--", "sh", "-c", "uvicorn app:app"),
        ("/sbin/tini", "-g", "--", "sh", "-c", "uvicorn app:app"),
        ("dumb-init", "sh", "-c", "uvicorn app:app"),
        ("sh", "-c", "exec 2>&1; uvicorn app:app"),
        ("sh", "-c", "cd /app\nuvicorn app:app"),
        ("sh",),
    ],
)
def test_a_shell_is_found(words):
    """Whatever stands before it, and however it is told what to run."""
    assert is_shell_found(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("uvicorn", "app:app"),
        ("docker-init", "--", "uvicorn", "app:app"),
        ("tini", "uvicorn", "app:app"),
        ("sh", "-c", "exec uvicorn app:app"),
        ("sh", "-c", "cd /app;exec uvicorn app:app"),
        ("sh", "-c", "alembic upgrade head && exec uvicorn app:app --port $PORT"),
        ("sh", "-c", "set -e\nexec env A=1 \\\n  uvicorn app:app"),
        ("bash", "-lc", "if true; then exec gosu app uvicorn app:app; fi"),
        ("sh", "-c", 'exec "$@"', "sh", "uvicorn", "app:app"),
    ],
)
def test_a_shell_that_steps_aside_is_none(words):
    """An exec before the server can be seen in the command line."""
    assert not is_shell_found(*words)


def test_a_script_in_a_file_is_seen_only_while_it_runs():
    """From a task definition nobody sees whether it ends in an exec; as process 1 the shell is there for good."""
    assert not is_shell_found("/bin/sh", "/entrypoint.sh", is_process=False)
    assert is_shell_found("/bin/sh", "/entrypoint.sh", is_process=True)


@pytest.mark.parametrize(
    ("words", "server"),
    [
        (("tini", "--", "sh", "-c", "exec /venv/bin/uvicorn app:app"), "uvicorn"),
        (("sh", "-c", 'exec "$@"', "sh", "gunicorn", "app:app"), "gunicorn"),
        (("python", "-m", "hypercorn", "app:app"), "hypercorn"),
        (("sh", "-c", "exec uvicorn 'app:app"), "uvicorn"),
        (("tini", "-v"), ""),
        ((), ""),
    ],
)
def test_the_server_behind_it(words, server):
    """The server is found behind inits, shells and interpreters; a script that no shell could read spoils nothing."""
    assert ServerCommand(words).server == server


def test_options_in_all_their_forms():
    """With an equals sign, as the next word, and joined to a letter."""
    command = ServerCommand(["gunicorn", "-kasgi", "--config=c.py", "--graceful-timeout", "40", "--bind"])
    assert command.option("-k", "--worker-class") == "asgi"
    assert command.option("-c", "--config") == "c.py"
    assert command.number("--graceful-timeout") == 40
    assert command.option("--bind") == ""
    assert command.option("--workers") is command.number("--workers") is None


@pytest.mark.parametrize(
    ("words", "environ", "addresses"),
    [
        ("uvicorn app:app", {}, [("", 8000)]),
        ("uvicorn app:app --host :: --port=9000", {}, [("::", 9000)]),
        ("uvicorn app:app", {"UVICORN_PORT": "9000"}, [("", 9000)]),
        ("uvicorn app:app --port $PORT", {}, []),
        ("uvicorn app:app --uds /run/app.sock", {}, []),
        ("gunicorn app:app -b 0.0.0.0:9000", {}, [("0.0.0.0", 9000)]),
        ("gunicorn app:app -b:9000 --bind=[::]:9001", {}, [("", 9000), ("[::]", 9001)]),
        ("gunicorn app:app --bind localhost", {}, [("localhost", 8000)]),
        ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "--bind tcp://0.0.0.0:9000"}, [("0.0.0.0", 9000)]),
        ("gunicorn app:app -b unix:/run/app.sock -b :9000", {}, []),
        ("gunicorn app:app -b 0.0.0.0:$PORT", {}, []),
        ("gunicorn app:app -c conf.py", {}, []),
        ("hypercorn app:app --bind 0.0.0.0:9000", {}, [("0.0.0.0", 9000)]),
        ("fastapi run app.py", {}, [("", 8000)]),
        ("fastapi run app.py --port 9000", {}, [("", 9000)]),
        ("fastapi run app.py", {"PORT": "9000"}, []),
        ("granian app:app --port 9000 --host 0.0.0.0", {}, [("0.0.0.0", 9000)]),
        ("daphne -b 0.0.0.0 -p 9000 app:app", {}, [("0.0.0.0", 9000)]),
        ("daphne app:app", {}, []),
        ("supervisord -n", {}, []),
    ],
)
def test_where_it_listens(words, environ, addresses):
    """Each server has its own way to say it; what only a file or a shell knows is not guessed."""
    assert ServerCommand(words.split(), environ).addresses == addresses


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("gunicorn -k asgi app:app -b 0.0.0.0:9000", "listens on port 9000, and the target group sends to 8000"),
        ("gunicorn -k asgi app:app -b :9000 -b :8000", ""),
        ("fastapi run app.py --port 9000", "listens on port 9000"),
        ("uvicorn app:app --host 127.0.0.1", "listens on 127.0.0.1"),
        ("gunicorn -k asgi app:app -b localhost:8000 -b :8000", ""),
        ("uvicorn app:app --host 0.0.0.0", ""),
    ],
)
def test_a_server_that_the_target_group_does_not_reach(words, found):
    """The port must be the group's, and the host not the container's own."""
    listens = [
        each.found
        for each in check_server(SetUp(command=tuple(words.split()), ports=(8000,)))
        if each.level == "unsafe" and "listens" in each.found
    ]
    assert bool(listens) is bool(found)
    assert found in " ".join(listens)


def test_a_proxy_reaches_a_server_on_the_local_host():
    """Containers of a task share the network, so one that forwards requests may be what reaches it."""
    command = ("uvicorn", "app:app", "--host", "127.0.0.1")
    found = check_server(SetUp(command=command, ports=(8000,), proxies=("envoy",)))
    assert not [each for each in found if each.level == "unsafe"]


def test_a_server_without_websockets():
    """It may be meant, for event streams."""
    found = [*check_server(SetUp(command=("uvicorn", "app:app", "--ws", "none")))]
    assert any("--ws none" in each.found and each.level == "note" for each in found)
