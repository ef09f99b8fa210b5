"""Real clients, and what each does when its connection ends in one way or another."""
