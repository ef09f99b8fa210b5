"""What a session weighs: resident bytes, before, during and after a drain. About three minutes."""

import time

import pytest
from harness.fresh import measure
from harness.process import resident_bytes

SESSIONS = 100_000
TRACED = 20_000
"""Sessions where tracemalloc counts, which is slow, or where only the difference between two kinds is looked for."""

REAL = 16_000
SOME = 4_000
WINDOW = 8.0


def both(number, rounds=1, **options):
    """Measure sessions in process, bare and watched by turns; return a list of figures for each."""
    found = {False: [], True: []}
    for place in range(rounds):
        for watched in (False, True) if place % 2 else (True, False):
            found[watched].append(measure("memory", number=number, watched=watched, window=6.0, **options))
    return found[True], found[False]


def test_sessions_in_process(report):
    """A hundred thousand sessions without sockets, each time in a fresh interpreter; the mean over all sessions."""
    watched, bare = both(SESSIONS, rounds=2)
    before = [each["before"] for each in bare]
    name = f"in process, {SESSIONS:,}"
    unit = "bytes a session, resident"
    report.add(f"{name}, before", unit, [each["before"] for each in watched], before, goal=500, judged="added")
    report.add(f"{name}, half way", unit, [each["half way"] for each in watched], [each["half way"] for each in bare])
    report.add(
        f"{name}, during, at the most (bare: before)",
        unit,
        [each["most"] for each in watched],
        before,
        goal=600,
        judged="added",
    )
    report.add(f"{name}, after", unit, [each["after"] for each in watched], [each["after"] for each in bare])


def test_objects_in_process(report):
    """The same by tracemalloc, which counts what is asked for and not what the allocator makes of it."""
    [watched], [bare] = both(TRACED, traced=True)
    for when in ("before", "half way", "after"):
        report.add(
            f"in process, {TRACED:,}, {when}", "bytes a session, traced", [watched[when]], [bare[when]], judged="added"
        )


def test_starlette_in_process(report):
    """Behind the middleware an application of Starlette's, whose connections have a state of their own."""
    [watched], [bare] = both(TRACED, starlette=True)
    report.add(
        f"in process, {TRACED:,}, Starlette, before",
        "bytes a session, resident",
        [watched["before"]],
        [bare["before"]],
    )


def test_leaving_in_process(report):
    """Clients that do not read: their sessions were asked to leave, and stay for the grace."""
    figures = measure("memory", number=TRACED, watched=True, window=4.0, frozen=True)
    what = f"in process, {TRACED:,}, leaving, the client does not read (bare: not yet asked)"
    report.add(what, "bytes a session, resident", [figures["most"]], [figures["before"]])


def test_what_a_session_is_made_of(report):
    """Sizes of coroutines, innermost last, and bytes by the line that allocated them."""
    figures = measure("parts", number=5000)
    for kind, sizes in figures.items():
        for name, size in sizes.items():
            report.add(f"one session, {kind}: {name}", "bytes", [size])


def test_real_connections(serve, load, report):
    """Idle connections of a real uvicorn: all resident memory with the middleware ÷ without the package."""
    imported = measure("imported")["resident"]
    report.add("importing the package", "MB, resident", [imported / 1e6])
    found = {"bare": [], "watched": []}
    for name, sizes in found.items():
        server = serve(f"closing:{name}")
        # The bare application stands in a module that imports the package, which a bare server would not.
        less = imported if name == "bare" else 0

        def look(server=server, sizes=sizes, less=less):
            sizes.append(resident_bytes(server.pid) - less)

        look()
        load.open(server.port, REAL, "/kept")
        server.get("/collect")
        look()
        load.start("closes", within=WINDOW + 30)
        if name == "watched":
            server.drain("POST", window=WINDOW)
        else:
            server.get(f"/close?seconds={WINDOW}")
        time.sleep(WINDOW / 2)
        look()
        codes = {code for _, code in load.finish()["closes"]}
        assert codes == {1012}
        load.close()
        server.get("/collect")
        look()
        assert not server.trouble
    moments = ("without sessions", "before", "half way", "after")
    for when, ours, bare in zip(moments, found["watched"], found["bare"], strict=True):
        goal = 1.04 if when in ("before", "half way") else None
        report.add(f"real, {REAL:,}, {when}", "MB, resident", [ours / 1e6], [bare / 1e6], goal=goal)
    empty = {name: sizes[0] for name, sizes in found.items()}
    report.add(
        f"real, {REAL:,}, before",
        "bytes a connection",
        [(found["watched"][1] - empty["watched"]) / REAL],
        [(found["bare"][1] - empty["bare"]) / REAL],
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets", "websockets-sansio", "wsproto"])
def test_implementations(serve, load, report, implementation, loop):
    """What else decides how many fit: idle connections of the bare server."""
    size = idle_connection(serve, load, "--ws", implementation, "--loop", loop)
    report.add(f"bare, {implementation}, {loop}", "bytes a connection", [size])


@pytest.mark.parametrize("implementation", ["websockets", "websockets-sansio", "wsproto"])
@pytest.mark.parametrize("allowed", ["true", "false"])
def test_deflate(serve, load, report, implementation, allowed):
    """Clients offer per-message deflate, as browsers do; the server takes it, or is told not to."""
    arguments = ("--ws", implementation, "--loop", "uvloop", "--ws-per-message-deflate", allowed)
    size = idle_connection(serve, load, *arguments, deflate=True)
    report.add(f"bare, {implementation}, deflate offered, {allowed}", "bytes a connection", [size])


def idle_connection(serve, load, *arguments, deflate=False):
    """Return the resident bytes that one of `SOME` idle connections adds to a bare server."""
    server = serve("echo:bare", *arguments)
    load.open(server.port, 100)
    load.close()
    server.get("/collect")
    empty = resident_bytes(server.pid)
    load.open(server.port, SOME, deflate=deflate)
    server.get("/collect")
    size = (resident_bytes(server.pid) - empty) / SOME
    load.close()
    return size
