"""KV budgets in the engine: blocks of sequences that stop growing, and sums over what decodes attend to.

A sequence under a budget holds blocks for at most its limit (`Sequence.kv_limit`). While its prompt is computed that is
all of the prompt, unless tokens are dropped all along; at the end of the prefill the surplus is given back. Where
decoded tokens come on top of what is kept of the prompt, the dropped part stands for blocks that the sequence doesn't
hold (`Sequence.kv_dropped`), in whole blocks, so that its blocks go on growing as those of any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.budget import Cap, KVBudget
from simulator.engine.kv import KVManager

if TYPE_CHECKING:
    from simulator.engine.sequence import Sequence

NO_LIMIT = 1 << 60
"""`Sequence.kv_limit` of a sequence that keeps everything."""


class BudgetKVManager(KVManager):
    """KV blocks of one replica under a budget that drops tokens; it has no prefix cache.

    Parameters
    ----------
    budget
        Must be capped: one that keeps all tokens needs nothing of this.
    """

    __slots__ = ("_budget",)

    drops_tokens = True

    def __init__(self, total_blocks: int, block_size: int, budget: KVBudget) -> None:
        super().__init__(total_blocks, block_size)
        self._budget = budget

    def held_by(self, sequence: Sequence) -> int:
        return sequence.private_blocks + sequence.kv_dropped

    def blocks_of(self, sequence: Sequence, tokens: int) -> int:
        return -(-min(tokens, sequence.kv_limit) // self.block_size) - sequence.kv_dropped

    def _kept(self, sequence: Sequence) -> int:
        kept = self._budget.kept_tokens(sequence.prompt_tokens)
        assert kept is not None
        return kept

    def admit(self, sequence: Sequence, tokens: int, keep_free_blocks: int) -> bool:
        kept = self._kept(sequence)
        if self._budget.drop == "prefill":
            limit = kept
        elif self._budget.grows:
            limit = NO_LIMIT
        else:
            limit = max(kept, sequence.prefill_target)
        need = -(-min(tokens, limit) // self.block_size)
        if need + keep_free_blocks > self.free_blocks:
            return False
        self.free_blocks -= need
        sequence.private_blocks = need
        sequence.kv_limit, sequence.kv_dropped = limit, 0
        return True

    def prefilled(self, sequence: Sequence) -> None:
        """Give back what the budget doesn't keep of a prompt that has just been computed, or came from elsewhere."""
        kept = self._kept(sequence)
        if self._budget.grows:
            dropped = max(0, sequence.prompt_tokens - kept) // self.block_size
            surplus = dropped - sequence.kv_dropped  # none of one that was cut before, and comes back
            sequence.kv_dropped = dropped
        else:
            sequence.kv_limit = kept
            surplus = max(0, sequence.private_blocks - -(-kept // self.block_size))
        sequence.private_blocks -= surplus
        self.free_blocks += surplus


class DecodeReads:
    """Sums of min(attended, cap) over the members of a decode group, for each cap that a budget names.

    Kept as the group keeps its own sums: a member that is below its cap counts with its base (tokens attended to less
    steps done), one that has reached it with the cap. Reaching it is a milestone.

    Parameters
    ----------
    budget
        Its caps in the order of `policies.budget.KVBudget.tracked`. Where it grows a member attends, instead, to all
        but what was dropped of its prompt, ever more.
    """

    __slots__ = ("_bases", "_caps", "_full", "_full_squares", "_grows", "_squares", "_within")

    def __init__(self, budget: KVBudget) -> None:
        self._caps = budget.tracked
        self._grows = budget.grows
        zeros = [0] * len(self._caps)
        self._within, self._bases, self._squares = zeros.copy(), zeros.copy(), zeros.copy()
        self._full, self._full_squares = zeros.copy(), zeros.copy()

    def _base_and_cap(self, cap: Cap, prompt_tokens: int, base: int) -> tuple[int, int]:
        kept = cap.of(prompt_tokens)
        return (base - max(0, prompt_tokens - kept), NO_LIMIT) if self._grows else (base, kept)

    def add(self, sequence: Sequence, base: int, step: int, sign: int) -> list[tuple[int, int]]:
        """Count a member in (``sign`` 1) or out (-1); return when it reaches caps ahead: (step, number of the cap)."""
        ahead = []
        for number, cap in enumerate(self._caps):
            own, limit = self._base_and_cap(cap, sequence.prompt_tokens, base)
            if own + step < limit:
                self._within[number] += sign
                self._bases[number] += sign * own
                self._squares[number] += sign * own * own
                if limit != NO_LIMIT:
                    ahead.append((limit - own, number))
            else:
                self._full[number] += sign * limit
                self._full_squares[number] += sign * limit * limit
        return ahead

    def fill(self, sequence: Sequence, base: int, number: int) -> None:
        """Note that a member has reached a cap."""
        own, limit = self._base_and_cap(self._caps[number], sequence.prompt_tokens, base)
        self._within[number] -= 1
        self._bases[number] -= own
        self._squares[number] -= own * own
        self._full[number] += limit
        self._full_squares[number] += limit * limit

    def describe(self, step: int) -> list[tuple[int, int, int, int]]:
        """Return, for each cap, what `simulator.cost.shape.BatchShape.decode_reads` holds."""
        found = []
        for number, within in enumerate(self._within):
            bases = self._bases[number]
            attended = bases + within * step
            squares = self._squares[number] + step * (bases + attended)
            found.append((self._full[number] + attended, self._full_squares[number] + squares, within, attended))
        return found


__all__ = ["NO_LIMIT", "BudgetKVManager", "DecodeReads"]
