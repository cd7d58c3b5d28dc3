"""Parallelism policies: which routed experts, and copies of them, each expert parallel rank holds."""
