"""The part of a scenario that says which running requests go on at another replica, and how they get there."""

from typing import Annotated, ClassVar

from pydantic import Field

from simulator.scenario_base import Part, PolicyRef

LAST_STAGE_MAX_BLOCKS = 16
MAX_STAGES = 3
"""Llumnix, llumnix/config/default.py: ``LAST_STAGE_MAX_BLOCKS``, ``MAX_STAGES``."""


class ReschedulerRef(PolicyRef):
    """The policy that chooses moves."""

    kind: ClassVar[str] = "rescheduling"


class MigrationPart(Part):
    """How a running request moves: copies of its KV while it decodes, and a last one for which it stops."""

    last_stage_max_blocks: Annotated[int, Field(ge=1, le=2**31)] = LAST_STAGE_MAX_BLOCKS
    """KV blocks left to copy at which the request stops for the last copy; Llumnix's 16."""
    max_stages: Annotated[int, Field(ge=1, le=1000)] = MAX_STAGES
    """Copies, the last one included, beyond which a migration is given up; Llumnix's 3."""


__all__ = ["MigrationPart", "ReschedulerRef"]
