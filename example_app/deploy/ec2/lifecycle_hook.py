#!/usr/bin/env python3
"""
Lets an Auto Scaling group wait until this instance has drained, by a lifecycle hook.

It asks the instance's metadata (IMDSv2) what is to become of the instance. When that is its end, it runs
``starlette-drain start --wait``, keeps the hook alive meanwhile, and lets Auto Scaling go on. It needs the names of the
group and the hook in ``AUTO_SCALING_GROUP`` and ``LIFECYCLE_HOOK``, the permissions in ``iam-policy.json``, and boto3.
"""

import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

__all__ = ["main"]

IMDS = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
LOOK = 5.0
"""Seconds between two looks at the metadata."""

HEARTBEAT = 60.0
"""Seconds between two heartbeats: the hook's time starts anew with each, so it need not be as long as the drain."""

COMMAND = [
    *(sys.executable, "-m", "starlette_drain", "start"),
    *("--reason", "the instance is being terminated", "--wait"),
]

logger = logging.getLogger("lifecycle_hook")


def metadata(path: str) -> str | None:
    """Return what IMDSv2 has at *path*; ``None`` where there is nothing, or no answer."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = _ask("api/token", method="PUT", headers=ttl)
        return _ask(f"meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
    except (OSError, urllib.error.URLError) as error:
        logger.debug("%s: %s", path, error)
        return None


def _ask(path: str, **request: Any) -> str:
    asked = urllib.request.Request(f"{IMDS}/latest/{path}", **request)  # noqa: S310 - an address of the machine
    with urllib.request.urlopen(asked, timeout=2) as answer:  # noqa: S310 - likewise
        return str(answer.read().decode())


def drain(beat: Any) -> None:
    """Let the server drain, with a *beat* every minute. Where it cannot, the instance must end all the same."""
    with subprocess.Popen(COMMAND) as draining:  # noqa: S603 - a constant
        while draining.poll() is None:
            try:
                draining.wait(HEARTBEAT)
            except subprocess.TimeoutExpired:
                beat()
    logger.info("starlette-drain ended with %d", draining.returncode)


def main() -> None:
    """Wait for the end of this instance; then drain, and let Auto Scaling go on."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    while metadata("autoscaling/target-lifecycle-state") != "Terminated":
        time.sleep(LOOK)
    logger.info("Auto Scaling terminates this instance.")
    region, instance = metadata("placement/region"), metadata("instance-id")
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 8})
    client: Any = boto3.client("autoscaling", region_name=region, config=config)
    which = {
        "AutoScalingGroupName": os.environ["AUTO_SCALING_GROUP"],
        "LifecycleHookName": os.environ["LIFECYCLE_HOOK"],
        "InstanceId": instance,
    }

    def beat() -> None:
        try:
            client.record_lifecycle_action_heartbeat(**which)
        except (BotoCoreError, ClientError) as error:  # the hook may not have begun: the balancer is waited for first
            logger.warning("%s", error)

    drain(beat)
    # The hook begins when the balancer has let go of the instance, and until then there is nothing to complete.
    while True:
        try:
            client.complete_lifecycle_action(**which, LifecycleActionResult="CONTINUE")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            logger.info("%s", error)
            time.sleep(LOOK)
        else:
            break
    logger.info("Auto Scaling may go on.")


if __name__ == "__main__":
    main()
