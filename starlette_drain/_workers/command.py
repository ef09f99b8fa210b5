"""The commands that workers publish to one another, their file format, and the claims that follow from them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import Claims
from starlette_drain._workers import file_format

__all__ = ["Cancel", "Claim", "Command", "Entry", "Withdraw", "compact", "fold", "follow"]

NUMBERS = ("at", "deadline", "lag")


@dataclass(frozen=True, slots=True)
class Claim:
    """A trigger holds a claim on the whole task."""

    cause: DrainCause


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A trigger has dropped its claim."""

    trigger: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The drain of the task was cancelled."""


Command = Claim | Withdraw | Cancel


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One command in the log.

    Attributes:
        number: Its place in the log, the same for all workers.
        pid: The process id of the worker that published it.
        command: The command.
    """

    number: int
    pid: int
    command: Command

    def dump(self) -> str:
        """Return the entry as JSON."""
        content: dict[str, Any] = {"number": self.number, "pid": self.pid}
        match self.command:
            case Claim(cause):
                content["claim"] = asdict(cause)
            case Withdraw(trigger):
                content["withdraw"] = trigger
            case Cancel():
                content["cancel"] = True
        return file_format.dump(content)

    @classmethod
    def load(cls, text: str) -> "Entry":
        """
        Parse an entry.

        Raises:
            ValueError: If *text* is not an entry, or has a version that this one cannot read.
        """
        content = file_format.load(text)
        try:
            return cls(int(content["number"]), int(content["pid"]), _command_in(content))
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"it is not a command: {text!r:.80}"
            raise ValueError(msg) from error


def _command_in(content: dict[str, Any]) -> Command:
    if content.get("cancel") is True:
        return Cancel()
    if isinstance(trigger := content.get("withdraw"), str):
        return Withdraw(trigger)
    known = {each.name for each in fields(DrainCause)}
    cause = DrainCause(**{name: value for name, value in content["claim"].items() if name in known})
    numbers = [getattr(cause, name) for name in NUMBERS]
    if not (
        isinstance(cause.trigger, str)
        and isinstance(cause.reason, str)
        and all(isinstance(each, bool) for each in (cause.revocable, cause.follows, cause.by_hand, cause.taken_out))
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers)
    ):
        raise TypeError
    return Claim(cause)


def follow(claims: Claims, command: Command) -> None:
    """Apply *command* to *claims*."""
    match command:
        case Claim(cause):
            claims.hold(cause)
        case Withdraw(trigger):
            claims.withdraw(trigger)
        case Cancel():
            claims.cancel()


def fold(commands: Iterable[Command]) -> Claims:
    """Return the claims that follow from *commands*."""
    claims = Claims()
    for command in commands:
        follow(claims, command)
    return claims


def compact(entries: Sequence[Entry]) -> set[int]:
    """Return the numbers of the *entries* that are redundant: the others lead to the same claims."""
    claims, needed = _claims_after(entries), list(entries)
    for entry in entries:
        rest = [each for each in needed if each is not entry]
        if _claims_after(rest) == claims:
            needed = rest
    return {each.number for each in entries} - {each.number for each in needed}


def _claims_after(entries: Iterable[Entry]) -> tuple[tuple[DrainCause, ...], tuple[DrainCause, ...]]:
    claims = fold(each.command for each in entries)
    return claims.standing, claims.muted
