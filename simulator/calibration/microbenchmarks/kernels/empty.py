"""A kernel that does nothing: what a launch costs."""
# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def,untyped-decorator"

from __future__ import annotations

import triton


@triton.jit
def _empty():
    """Do nothing."""


def empty() -> None:
    """Launch one program of one warp that does nothing."""
    _empty[(1,)](num_warps=1)
