"""One node of the TCP balancer, as a process: ``python -m example_app.rollout.balancer.node <port> <rule>``."""

import asyncio
import sys
from typing import Any, cast

from example_app.rollout.balancer.routing import Routing, Rule
from example_app.rollout.balancer.splice import Splices
from example_app.rollout.loops import listen_to_orders, run, say

__all__ = ["serve"]

BACKLOG = 4096
"""Connections that may wait to be accepted; Linux allows no more unless told so."""


async def serve(port: int, rule: Rule) -> None:
    """Accept connections on *port* and obey the lab until it hangs up."""
    splices = Splices(Routing(rule))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(splices.accept, "127.0.0.1", port, backlog=BACKLOG, reuse_port=True)
    say(listening=port)

    def obey(order: dict[str, Any]) -> None:
        if "route_to" in order:
            splices.routing.route_to([(host, port) for host, port in order["route_to"]])
        elif "cut" in order:
            host, target_port = order["cut"]
            splices.cut((host, target_port))
        elif "drop" in order:
            splices.drop(order["drop"])
        elif "retire" in order:
            server.close()

    await listen_to_orders(obey)
    server.close()


if __name__ == "__main__":
    run(serve(int(sys.argv[1]), cast("Rule", sys.argv[2])))
