"""What this task asks AWS to do."""
