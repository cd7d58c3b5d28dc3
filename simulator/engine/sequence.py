"""One request on its way through a replica."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from enum import IntEnum
from typing import TYPE_CHECKING

from simulator.engine.clock import NS_PER_S

if TYPE_CHECKING:
    from simulator.engine.decode_group import DecodeGroup
    from simulator.engine.kv import CacheUnit


class State(IntEnum):
    """Where a sequence is."""

    WAITING = 0
    PREFILLING = 1
    DECODING = 2
    SWAPPED = 3
    ENDED = 4
    MOVING = 5
    """Holds KV here and is on no lane: what comes next happens on another replica."""


WAITING, PREFILLING, DECODING, SWAPPED, ENDED, MOVING = State
"""The states by their names: ``State.WAITING`` is looked up by a function of `enum` in Python 3.11, in 0.25 us."""


class Sequence:
    """A request's state in the engine; policies see it as a `policies.protocols.RequestView`.

    While it decodes, its progress is kept by its `DecodeGroup` for all members at once, so that a step costs the
    same whatever the batch: ``generated_tokens`` and ``context_tokens`` are worked out when somebody asks.

    Attributes
    ----------
    prefill_target
        Tokens to have in KV before the next output token: the prompt, after a recompute also what was
        generated before it.
    kv_limit, kv_dropped
        Tokens that it holds KV for at most, and blocks of its context that were dropped, see `simulator.engine.budget`.
    private_blocks, units
        KV held: blocks of its own, and prefix-cache units shared with others.
    hash_tokens
        Tokens a block that ``hashes`` identify.
    last_token_ns
        When its last output token came; kept up to date only outside its decode group (-1: none yet).
    itl_max_ns
        Largest gap between output tokens so far, likewise.
    replica, load_tokens
        Where it was last sent, and what it counts there in ``outstanding_tokens``.
    on_replica
        Whether it is there: sent, and not taken back, lost or ended since.
    """

    __slots__ = (
        "_output_tokens",
        "arrival_ns",
        "arrival_order",
        "base_context",
        "base_generated",
        "class_code",
        "computed_tokens",
        "epoch",
        "first_gap",
        "group",
        "hash_tokens",
        "hashes",
        "itl_max_ns",
        "join_step",
        "kv_dropped",
        "kv_limit",
        "last_token_ns",
        "load_tokens",
        "match",
        "match_version",
        "on_replica",
        "planned",
        "predicted_output_tokens",
        "preemptions",
        "prefill_target",
        "priority",
        "private_blocks",
        "prompt_tokens",
        "queue_key",
        "replica",
        "request_id",
        "session_id",
        "state",
        "tenant",
        "ticket",
        "units",
        "wanted_blocks",
    )

    # Set when it is queued.
    wanted_blocks: int
    # Set when it joins a decode group.
    base_context: int
    join_step: int
    first_gap: int

    def __init__(
        self,
        request_id: int,
        arrival_ns: int,
        prompt_tokens: int,
        output_tokens: int,
        predicted_output_tokens: float = float("nan"),
        class_code: int = 0,
        priority: int = 0,
        session_id: int = -1,
        tenant: str = "",
        hashes: SequenceOf[int] = (),
    ) -> None:
        self.request_id = request_id
        self.arrival_ns = arrival_ns
        self.prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self.predicted_output_tokens = predicted_output_tokens
        self.class_code = class_code
        self.priority = priority
        self.tenant = tenant
        self.session_id = session_id
        self.hashes = hashes
        self.hash_tokens = 1
        self.state = WAITING
        self.prefill_target = prompt_tokens
        self.computed_tokens = 0
        self.base_generated = 0
        self.group: DecodeGroup | None = None
        self.epoch = 0
        self.planned = False
        self.private_blocks = 0
        self.kv_limit = 1 << 60
        self.kv_dropped = 0
        self.units: list[CacheUnit] = []
        self.match = 0
        self.match_version = -1
        self.last_token_ns = -1
        self.itl_max_ns = 0
        self.preemptions = 0
        self.ticket = 0
        self.queue_key = 0.0
        self.arrival_order = 0
        self.replica = 0
        self.on_replica = False
        self.load_tokens = 0

    def successor(self) -> Sequence:
        """Return the same request anew, with nothing computed and no KV: for another replica, or another attempt."""
        new = Sequence(
            self.request_id,
            self.arrival_ns,
            self.prompt_tokens,
            self._output_tokens,
            self.predicted_output_tokens,
            self.class_code,
            self.priority,
            self.session_id,
            self.tenant,
            self.hashes,
        )
        new.arrival_order = self.arrival_order
        new.load_tokens = self.load_tokens
        new.preemptions = self.preemptions
        return new

    def carry_on(self, before: Sequence) -> None:
        """Take over what another sequence of the same request got done: its tokens, not its KV."""
        self._output_tokens = before._output_tokens
        self.load_tokens = before.load_tokens
        self.base_generated = before.base_generated
        self.computed_tokens = before.computed_tokens
        self.prefill_target = before.prefill_target
        self.last_token_ns = before.last_token_ns
        self.itl_max_ns = before.itl_max_ns
        self.preemptions = before.preemptions

    def recompute(self) -> None:
        """Have everything computed so far computed again: the prompt, and the tokens generated since."""
        self.state = WAITING
        self.prefill_target = self.prompt_tokens + self.base_generated
        self.computed_tokens = 0
        self.match_version = -1
        self.kv_limit = 1 << 60
        self.kv_dropped = 0

    @property
    def arrival_s(self) -> float:
        """When the request reached the cluster, seconds."""
        return self.arrival_ns / NS_PER_S

    @property
    def block_hashes(self) -> SequenceOf[int]:
        """Identities of the prompt's whole blocks; the trace may know those of the answer, which nobody may see."""
        return self.hashes[: self.prompt_tokens // self.hash_tokens]

    @property
    def remaining_prefill(self) -> int:
        """Tokens to compute before the next output token."""
        return self.prefill_target - self.computed_tokens if self.state <= PREFILLING else 0

    @property
    def generated_tokens(self) -> int:
        """Output tokens so far."""
        if self.group is None:
            return self.base_generated
        return self.base_generated + self.group.step - self.join_step

    @property
    def context_tokens(self) -> int:
        """Tokens in KV."""
        if self.group is not None:
            return self.base_context + self.group.step - self.join_step
        return self.computed_tokens

    def __repr__(self) -> str:
        return f"<request {self.request_id} {self.state.name.lower()}>"


def load_of(sequence: Sequence) -> int:
    """Return the tokens that a request counts among those outstanding on a replica: prompt and predicted output."""
    prompt, predicted = sequence.prompt_tokens, sequence.predicted_output_tokens
    return prompt if predicted != predicted else prompt + round(predicted)
