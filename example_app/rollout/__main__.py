"""
The rollout lab: ``python -m example_app.rollout``.

A rolling deployment with and without starlette_drain, on this machine: real uvicorn tasks, real sockets, a balancer,
a pretended AWS, a fleet of clients. It ends with a table, a JSON file and a picture.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence

from example_app.limits import raise_file_limit
from example_app.rollout.balancer.haproxy import MissingHAProxy
from example_app.rollout.options import parse
from example_app.rollout.progress import Progress
from example_app.rollout.report import table, write_json
from example_app.rollout.rollout import Outcome, Plan, perform
from example_app.rollout.scenarios import Scenario
from example_app.rollout.tasks import TaskFailed

__all__ = ["main"]

STOPPED = "\nStopped; every process has been ended."
EXPECTED = (MissingHAProxy, TaskFailed, OSError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform the scenarios one after the other; return the exit status, after a signal 128 and its number."""
    scenarios, plan = parse(arguments)
    raise_file_limit()  # children inherit the limit
    try:
        outcomes = asyncio.run(_perform_all(scenarios, plan))
    except KeyboardInterrupt:
        print(STOPPED)
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        print(STOPPED)
        return 128 + signal.SIGTERM
    except (ExceptionGroup, *EXPECTED) as error:
        causes = _causes(error)
        if not all(isinstance(each, EXPECTED) for each in causes):
            raise  # a mistake of the lab's, of which the traceback tells more
        print("", *(str(each) or repr(each) for each in causes), sep="\n", file=sys.stderr)
        return 1
    print(f"\n{table(outcomes)}\n")
    print(f"figures  {write_json(outcomes, plan)}")
    try:
        from example_app.rollout.picture import draw  # noqa: PLC0415 - matplotlib is slow to import
    except ImportError:
        print("picture  none: matplotlib is not installed")
    else:
        print("picture  " + "\n         ".join(str(path) for path in draw(outcomes, plan)))
    return 0


def _causes(error: Exception) -> list[Exception]:
    """Return what has gone wrong, without the groups around it."""
    if isinstance(error, ExceptionGroup):
        return [cause for each in error.exceptions for cause in _causes(each)]
    return [error]


async def _perform_all(scenarios: Sequence[Scenario], plan: Plan) -> list[Outcome]:
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    plan.results.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    outcomes = []
    for number, scenario in enumerate(scenarios, 1):
        progress.say(
            f"{number}/{len(scenarios)}  {scenario.name}: {plan.tasks} tasks, {plan.fleet.clients:,} clients, "
            f"a delay of {plan.times.ecs_delay:g} s lived through in {plan.times.delay:g} s"
        )
        outcomes.append(await perform(scenario, plan, progress.watch))
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
