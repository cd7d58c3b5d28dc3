"""Clients that give up and try again."""

from simulator.clients.feature import ClientsFeature

__all__ = ["ClientsFeature"]
