"""Finds out which task this is, and which targets are its own."""
