"""Admission policies: who is let in, and who is told at once to come back later."""
