"""Balancing policies: which attention data parallel rank of a replica gets a request."""
