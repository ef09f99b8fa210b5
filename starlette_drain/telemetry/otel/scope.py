"""Under which name, version and schema we are known to OpenTelemetry (its "instrumentation scope")."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["NAME", "SCHEMA_URL", "VERSION"]

NAME = "starlette_drain"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


def _version() -> str:
    # The top package knows it too, but imports point down only.
    try:
        return version("starlette-drain")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return ""


VERSION = _version()
