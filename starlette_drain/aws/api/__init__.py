"""Calls to AWS: clients, retries, errors, and what each call needs."""
