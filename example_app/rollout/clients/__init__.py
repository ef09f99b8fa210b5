"""The fleet of clients: lean, many in a process, each with a memory of what happened to it."""
