"""The AWS wing: what a task can learn about itself and its target."""
