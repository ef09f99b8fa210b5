# Other projects' test suites must pass with every application wrapped in DrainMiddleware exactly as they pass without.
# With this folder on PYTHONPATH each way to run an application wraps it: Starlette's TestClient, uvicorn, httpx's
# ASGITransport and asgi-lifespan. Nothing of the other project is changed on disk:
#
#     git clone --branch 1.10.0 https://github.com/Kludex/starlette && cd starlette && pip install … starlette-drain
#     python -m pytest -rA -q >without.txt
#     PYTHONPATH=…/starlette-drain/tests/foreign python -m pytest -rA -q >with.txt
#     tests() { grep -E '^(PASSED|FAILED|ERROR) .*tests/' "$1" | sort; }  # and no lines of logs
#     diff <(tests without.txt) <(tests with.txt)
"""Wraps every application that a test suite of another project runs."""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

__all__ = ["install"]


def wrap(app: Any) -> Any:
    """Return *app* behind a DrainMiddleware that otherwise passes for it."""
    from starlette_drain import DrainMiddleware  # noqa: PLC0415 - not at the start of every Python process

    class Wrapped(DrainMiddleware):
        def __getattr__(self, name: str) -> Any:
            return getattr(self.app, name)

    if isinstance(app, DrainMiddleware):
        return app
    if path := os.environ.get("WRAP_EVERY_APP_COUNT"):
        # Non-blocking, for BlockBuster: in Starlette's tests it forbids other writes on an event loop.
        count = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK)
        os.write(count, f"{type(app).__name__}\n".encode())
        os.close(count)
    return Wrapped(app)


def _wrap_first_argument(owner: Any) -> None:
    """Wrap the application that the constructor of *owner* is given."""
    construct = owner.__init__

    @wraps(construct)
    def constructing(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, wrap(app), *args, **kwargs)

    owner.__init__ = constructing


def _patch_test_client(module: ModuleType) -> None:
    construct = module.TestClient.__init__

    @wraps(construct)
    def constructing(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        is_asgi3 = module._is_asgi3(app)
        construct(self, wrap(app if is_asgi3 else module._WrapASGI2(app)), *args, **kwargs)

    module.TestClient.__init__ = constructing


def _patch_uvicorn(module: ModuleType) -> None:
    """Give uvicorn's own modules the wrapped application, and tests that look at ``loaded_app`` the one they expect."""

    def get(self: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if not caller.startswith(("uvicorn.protocols.", "uvicorn.lifespan.")):
            return self.__dict__["loaded_app"]
        if "wrapped_app" not in self.__dict__:
            self.__dict__["wrapped_app"] = wrap(self.__dict__["loaded_app"])
        return self.__dict__["wrapped_app"]

    def put(self: Any, app: Any) -> None:
        self.__dict__["loaded_app"] = app
        self.__dict__.pop("wrapped_app", None)

    module.Config.loaded_app = property(get, put)


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "starlette.testclient": _patch_test_client,
    "uvicorn.config": _patch_uvicorn,
    "httpx._transports.asgi": lambda module: _wrap_first_argument(module.ASGITransport),
    "httpx2._transports.asgi": lambda module: _wrap_first_argument(module.ASGITransport),
    "asgi_lifespan._manager": lambda module: _wrap_first_argument(module.LifespanManager),
}


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        PATCHES[module.__name__](module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _PatchingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of PATCHES as everybody else does, and patches them once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in PATCHES:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)):
                spec.loader = _PatchingLoader(spec.loader)
                return spec
        return None


def install() -> None:
    """Patch the modules of PATCHES when they are imported."""
    if not any(isinstance(finder, _PatchingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PatchingFinder())
