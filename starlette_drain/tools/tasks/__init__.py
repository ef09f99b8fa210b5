"""The commands that show running tasks, and start and cancel their drains."""
