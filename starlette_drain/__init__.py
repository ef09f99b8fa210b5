"""Leave gently: close long-lived connections one by one before the load balancer cuts them all at once."""

from starlette_drain._asgi.http import EventStreamSession
from starlette_drain._asgi.lookup import session_of
from starlette_drain._asgi.middleware import DrainMiddleware
from starlette_drain._asgi.websocket import WebSocketSession
from starlette_drain._core.cause import DrainCause
from starlette_drain._core.pacing import BatchPacing, EvenPacing, Pacing, RateCapPacing
from starlette_drain._core.report import DrainReport
from starlette_drain._core.run import DrainProgress
from starlette_drain._core.session import RegistryStatistics, Session
from starlette_drain._core.state import DrainState
from starlette_drain._core.turnover import Rotation, RotationProgress
from starlette_drain._engine.drain import Drain
from starlette_drain.aws.options import AwsSettings as Settings
from starlette_drain.exceptions import (
    DiscoveryError,
    DrainEnded,
    DrainError,
    DrainInUse,
    IllegalTransition,
    NotTracked,
    SettingsError,
    TooLateToCancel,
)
from starlette_drain.telemetry.base import Observer
from starlette_drain.triggers.base import Control, Trigger

__all__ = [
    "BatchPacing",
    "Control",
    "DiscoveryError",
    "Drain",
    "DrainCause",
    "DrainEnded",
    "DrainError",
    "DrainInUse",
    "DrainMiddleware",
    "DrainProgress",
    "DrainReport",
    "DrainState",
    "EvenPacing",
    "EventStreamSession",
    "IllegalTransition",
    "NotTracked",
    "Observer",
    "Pacing",
    "RateCapPacing",
    "RegistryStatistics",
    "Rotation",
    "RotationProgress",
    "Session",
    "Settings",
    "SettingsError",
    "TooLateToCancel",
    "Trigger",
    "WebSocketSession",
    "session_of",
]

__version__ = "0.1.0"
