"""One task leaves, on this machine and without AWS: ``python -m example_app.demo``."""
