"""What can go wrong during a rollout; one file each, and the list of them here."""

from example_app.rollout.faults.api_down import API_DOWN
from example_app.rollout.faults.base import Fault, Stage
from example_app.rollout.faults.deaf_clients import DEAF_CLIENTS
from example_app.rollout.faults.early_cut import EARLY_CUT
from example_app.rollout.faults.kill_task import KILL_TASK
from example_app.rollout.faults.throttle import THROTTLE

__all__ = ["FAULTS", "Fault", "Stage"]

FAULTS: dict[str, Fault] = {each.name: each for each in (THROTTLE, API_DOWN, KILL_TASK, EARLY_CUT, DEAF_CLIENTS)}
