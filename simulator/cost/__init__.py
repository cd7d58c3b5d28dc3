"""Cost models: how long an engine step takes."""
