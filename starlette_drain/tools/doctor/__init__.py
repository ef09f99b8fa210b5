"""Looks at a set-up and says what will go wrong, before it does."""
