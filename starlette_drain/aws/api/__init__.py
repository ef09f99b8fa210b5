"""Calls to AWS: clients, time limits, budgets and errors."""
