"""What AWS says of this task: the triggers."""
