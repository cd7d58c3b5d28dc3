"""Replicas that start and end while a run goes on: cold starts, draining, and who asks for them."""
