"""
One task leaves, on this machine and without AWS: ``python -m example_app.demo``.

The example server runs under uvicorn with the environment of an ECS task, whose AWS is FakeAWS. Real WebSocket clients
connect, the task's target is deregistered, and after the deregistration delay the process gets SIGTERM, as on ECS.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from example_app.demo.demo import Demo

__all__ = ["main"]

STOPPED = "\nInterrupted; everything that was started has been stopped."


async def _run(clients: int, delay: float) -> bool:
    # Without this a SIGTERM to the demo would leave the children to PR_SET_PDEATHSIG, where there is one.
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await Demo(clients, delay).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status: 0 if every device was let go gently; after a signal 128 and its number."""
    parser = argparse.ArgumentParser(prog="python -m example_app.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clients", type=int, default=500, metavar="N", help="devices that connect (500)")
    parser.add_argument("--delay", type=float, default=60.0, metavar="S", help="deregistration delay, 4 to 3600 s (60)")
    options = parser.parse_args(arguments)
    if options.clients < 1:
        parser.error("--clients: at least 1")
    if not 4 <= options.delay <= 3600:
        parser.error("--delay: from 4 to 3600 seconds")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    print(f"One task of {options.clients} devices leaves a service; the deregistration delay is {options.delay:g} s.")
    try:
        return 0 if asyncio.run(_run(options.clients, options.delay)) else 1
    except KeyboardInterrupt:
        print(STOPPED)
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        print(STOPPED)
        return 128 + signal.SIGTERM
    except (OSError, RuntimeError) as error:
        print(f"\nThe demo could not be run: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
