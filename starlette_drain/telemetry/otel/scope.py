"""The name, version and schema of our OpenTelemetry instrumentation scope."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["NAME", "SCHEMA_URL", "VERSION"]

NAME = "starlette_drain"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


def _version() -> str:
    # Not from `starlette_drain.__version__`: the top package imports this one.
    try:
        return version("starlette-drain")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return ""


VERSION = _version()
