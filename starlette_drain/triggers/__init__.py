"""What may start a drain."""
