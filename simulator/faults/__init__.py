"""Faults: what breaks and when, who notices, and what becomes of the requests."""

from simulator.faults.feature import FaultsFeature

__all__ = ["FaultsFeature"]
