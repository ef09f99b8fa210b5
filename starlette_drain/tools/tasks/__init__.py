"""The commands that look at tasks that run, and start and cancel their drains."""
