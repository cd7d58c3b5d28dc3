"""Rescheduling policies: which running requests go on at another replica."""
