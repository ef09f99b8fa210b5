"""Leave gently: close long-lived connections one by one before the load balancer cuts them all at once."""

__version__ = "0.1.0"
