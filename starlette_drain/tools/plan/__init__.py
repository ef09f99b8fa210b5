"""What a deployment will do to the clients of a service, worked out before it happens."""
