"""What a task does when it is told to go; one file each, and the list of them here."""

from example_app.rollout.scenarios.balancer import BALANCERS
from example_app.rollout.scenarios.base import Scenario, Strike
from example_app.rollout.scenarios.crash import CRASHES
from example_app.rollout.scenarios.drain import DRAIN
from example_app.rollout.scenarios.scale_out import SCALE_OUTS
from example_app.rollout.scenarios.second_balancer import SECOND_BALANCERS
from example_app.rollout.scenarios.seed import SEED
from example_app.rollout.scenarios.sigterm_only import SIGTERM_ONLY
from example_app.rollout.scenarios.zone import ZONES

__all__ = ["SCENARIOS", "Scenario", "Strike"]

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (SIGTERM_ONLY, SEED, DRAIN, *CRASHES, *ZONES, *BALANCERS, *SCALE_OUTS, *SECOND_BALANCERS)
}
