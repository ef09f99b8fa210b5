"""Examples: a server that sends commands to devices, deployments of it, and the rollout lab."""
