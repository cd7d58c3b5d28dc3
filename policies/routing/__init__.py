"""Routing policies: which replica gets an arriving request."""
