"""The ground floor: standard library only, no async, no clock, no I/O, no global randomness."""
