"""Validation: what measured servers and kernels say, beside what the simulator says of the same.

``from simulator.validation import validate``; ``docs/validation.md`` says what is compared and what is assumed.
"""

from __future__ import annotations

from simulator.validation.validating import validate

__all__ = ["validate"]
