"""What one worker process tells the others, as it stands in a file."""

import json
from dataclasses import asdict, dataclass

from starlette_drain._core.cause import DrainCause

__all__ = ["Order"]


@dataclass(frozen=True, slots=True)
class Order:
    """
    The latest word on whether the task drains.

    Attributes:
        number: Counts the orders of a task; a worker obeys each once.
        cause: Why the task drains; ``None`` takes a drain back.
    """

    number: int
    cause: DrainCause | None

    def dump(self) -> str:
        """Return the order as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Order":
        """
        Read an order.

        Raises:
            ValueError: If *text* is none.
        """
        try:
            content = json.loads(text)
            cause = content["cause"]
            return cls(int(content["number"]), None if cause is None else DrainCause(**cause))
        except (KeyError, TypeError) as error:
            msg = f"not an order of a worker: {text!r:.80}"
            raise ValueError(msg) from error
