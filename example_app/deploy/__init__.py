"""What it takes to deploy the example, as files."""
