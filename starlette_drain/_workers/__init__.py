"""Several processes of one task drain as one."""
