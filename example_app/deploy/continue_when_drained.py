"""
Lets a deployment go on when its old tasks are empty: a step of the pipeline that deploys.

    pip install '/path/to/starlette_drain[aws-boto3,cli]'
    python continue_when_drained.py --cluster main --service streams --window 3000

A PAUSE hook at POST_PRODUCTION_TRAFFIC_SHIFT holds the deployment; give it a timeout longer than the window. The script
waits for it, starts a drain in each old task, waits for their ends, and continues the deployment. Exit code 1: a task
did not let all its sessions leave, or could not be asked. The deployment is then still paused: run it again, or let the
hook's timeout decide.

The tasks are asked with the token in DRAIN_ADMIN_TOKEN, or without one by ECS Exec. The role needs `ecs:` ListTasks,
DescribeTasks, DescribeServices, ListServiceDeployments, DescribeServiceDeployments and ContinueServiceDeployment.
"""

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

STAGE = "POST_PRODUCTION_TRAFFIC_SHIFT"
LOOK_EVERY = 5.0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Continue a paused deployment when its old tasks have drained.")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--window", type=float, default=3000.0, help="seconds for the sessions to leave, at most 3600")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds until the deployment must be paused")
    asked = parser.parse_args()
    ecs = boto3.client("ecs")
    until = time.monotonic() + asked.within
    while (paused := paused_deployment(ecs, asked.cluster, asked.service)) is None:
        if time.monotonic() > until:
            print("The deployment is not paused.", file=sys.stderr)
            return 1
        time.sleep(LOOK_EVERY)
    deployment, hook = paused
    tasks = old_tasks(ecs, asked.cluster, asked.service)
    if not tasks:
        print("No old task was found, so nothing was drained.", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(len(tasks)) as pool:
        codes = list(pool.map(lambda task: drain(asked.cluster, asked.service, task, asked.window), tasks))
    if any(codes):
        print("Not all old tasks have drained: the deployment stays paused.", file=sys.stderr)
        return 1
    ecs.continue_service_deployment(serviceDeploymentArn=deployment, hookId=hook, action="CONTINUE")
    print(f"All old tasks ({len(tasks)}) are empty: the deployment goes on.")
    return 0


def paused_deployment(ecs: Any, cluster: str, service: str) -> tuple[str, str] | None:
    """Return the ARN of the deployment and the id of the hook that holds it."""
    listed = ecs.list_service_deployments(cluster=cluster, service=service, status=["IN_PROGRESS"])
    arns = [each["serviceDeploymentArn"] for each in listed["serviceDeployments"]]
    shown = ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"] if arns else []
    for each in shown:
        for hook in each.get("lifecycleHookDetails", []):
            if each.get("lifecycleStage") == STAGE and hook["status"] == "AWAITING_ACTION":
                return each["serviceDeploymentArn"], hook["hookId"]
    return None


def old_tasks(ecs: Any, cluster: str, service: str) -> list[str]:
    """Return the tasks that another than the newest deployment of the service has started."""
    (record,) = ecs.describe_services(cluster=cluster, services=[service])["services"]
    former = [each["id"] for each in record["deployments"] if each["status"] != "PRIMARY"]
    pages = ecs.get_paginator("list_tasks")
    found = (page for each in former for page in pages.paginate(cluster=cluster, startedBy=each))
    return [arn for page in found for arn in page["taskArns"]]


def drain(cluster: str, service: str, task: str, window: float) -> int:
    """Drain a task, and return 0 when all its sessions have left in time."""
    which = ["--cluster", cluster, "--service", service, "--task", task]
    how = ["--window", f"{window:g}", "--reason", "replaced", "--taken-out", "--wait"]
    command = [sys.executable, "-m", "starlette_drain", "start", *which, *how]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - no shell


if __name__ == "__main__":
    sys.exit(main())
