"""Queueing policies: in which order waiting requests are considered."""
