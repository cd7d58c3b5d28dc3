"""Scaling policies: how many replicas a pool has."""
