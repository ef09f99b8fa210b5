"""Who may ask for a drain."""
