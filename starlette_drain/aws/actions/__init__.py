"""What this task changes in AWS."""
