"""Fleets that no laptop can run, in virtual time: the figures in docs/fleet.md."""
