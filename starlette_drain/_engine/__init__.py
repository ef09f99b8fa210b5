"""Draining one process: the engine, its lifetime, and what runs on its event loop."""
