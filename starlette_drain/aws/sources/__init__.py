"""The triggers that watch what AWS says about this task."""
