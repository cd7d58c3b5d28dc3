"""Holding prompts back until every attention data parallel rank has one, so that ranks prefill in the same steps.

TensorRT-LLM's ``attention_dp_config`` (``enable_balance``, ``timeout_iters``, ``batching_wait_iters``), after
``_balance_adp_requests`` of ``tensorrt_llm/_torch/pyexecutor/py_executor.py``: prompts begin when all ranks have one
(and after ``batching_wait_steps`` more, for others to come), when a count of steps reaches ``timeout_steps``, or when
some rank has nothing to decode. The count goes on whether or not somebody waits, as it does there.

A rank *has a prompt* here if somebody waits and a place is free; that memory may lack is not looked at. Prompts that
have begun are not held back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.engine.queue import WaitingQueue
from simulator.engine.sequence import Sequence as Request

UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class RankState:
    """What the decision looks at, of one rank before a step."""

    has_prompt: bool
    decodes: bool
    has_place: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether prompts are held back, for how many steps that stays so if nothing else changes, and what to count."""

    hold: bool
    most_steps: int
    kind: str


class PrefillBalance:
    """See the module.

    Parameters
    ----------
    timeout_steps
        Steps after which prompts begin although some rank has none.
    batching_wait_steps
        Steps to wait for more prompts when all ranks have one.
    """

    def __init__(self, timeout_steps: int, batching_wait_steps: int) -> None:
        self._timeout, self._wait = timeout_steps, batching_wait_steps
        self._waited = self._batched = 0

    def decide(self, ranks: Sequence[RankState]) -> Decision:
        """Decide for the next step; `done` counts the steps that followed."""
        decoding = all(rank.decodes for rank in ranks)
        if all(rank.has_place and rank.has_prompt for rank in ranks):
            if decoding and self._batched < self._wait:
                return Decision(True, self._wait - self._batched, "batching")
            return Decision(False, 1, "all" if decoding else "begin")
        if not decoding:
            return Decision(False, UNLIMITED, "begin")
        if not any(rank.has_prompt for rank in ranks):
            return Decision(False, UNLIMITED, "nobody")
        left = self._timeout - 1 - self._waited
        if left <= 0:
            return Decision(False, 1, "begin")
        return Decision(True, left, "hold")

    def done(self, decision: Decision, steps: int) -> None:
        """Count the steps done after a decision."""
        if decision.kind == "batching":
            self._waited, self._batched = 0, self._batched + steps
        elif decision.kind == "all":
            self._waited = self._batched = 0
        elif decision.kind == "begin":
            self._waited = 0
        else:
            self._waited = (self._waited + steps) % self._timeout


class Closed:
    """A waiting queue that shows nobody: preempted requests still go back to the queue behind it."""

    __slots__ = ("_queue", "wanted")

    def __init__(self, queue: WaitingQueue) -> None:
        self._queue = queue
        self.wanted = queue.wanted

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Request]:
        return iter(())

    @property
    def first(self) -> Request:
        raise IndexError("nobody waits")

    def push(self, sequence: Request) -> bool:
        return self._queue.push(sequence)

    def push_front(self, sequence: Request) -> None:
        self._queue.push_front(sequence)

    def remove(self, sequence: Request) -> None:
        self._queue.remove(sequence)
