"""Who listens to a drain."""
