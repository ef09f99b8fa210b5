"""An example: a small server that streams commands to devices, and ways to watch it drain."""
