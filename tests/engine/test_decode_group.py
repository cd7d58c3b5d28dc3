"""Sums over members that advance together, against members that are counted one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.shape import BatchShape
from simulator.engine.decode_group import DecodeGroup
from simulator.engine.gap_log import GapLog
from simulator.engine.histogram import DurationHistogram
from simulator.engine.sequence import Sequence

BLOCK = 4


@dataclass
class Member:
    """A member as it is counted one by one."""

    sequence: Sequence
    context: int
    remaining: int
    joined_with: int
    blocks: int

    def step(self) -> int:
        """Decode a token; return the blocks taken for it."""
        self.context += 1
        self.remaining -= 1
        more = max(0, -(-self.context // BLOCK) - self.blocks)
        self.blocks += more
        return more


def expected_shape(members: list[Member], window: int | None) -> dict[str, int]:
    attended = [member.context + 1 for member in members]
    inside = [n if window is None else min(n, window) for n in attended]
    return {
        "decodes": len(members),
        "decode_kv": sum(attended),
        "decode_kv_sq": sum(n * n for n in attended),
        "decode_window_kv": sum(inside),
        "decode_window_growth": sum(window is None or n < window for n in attended),
    }


def blocks_step_by_step(members: list[Member], steps: int) -> list[int]:
    """Return the blocks that each of the next steps takes if nobody ends."""
    ahead = [Member(m.sequence, m.context, m.remaining, m.joined_with, m.blocks) for m in members]
    return [sum(member.step() for member in ahead) for _ in range(steps)]


_OPERATIONS = st.one_of(
    # context, tokens to decode, blocks held beyond those of the context
    st.tuples(st.just("join"), st.integers(1, 30), st.integers(1, 40), st.sampled_from([0, 0, 0, 1, 3])),
    st.tuples(st.just("leave"), st.integers(0, 9), st.just(0), st.just(0)),
    st.tuples(st.just("advance"), st.integers(1, 12), st.just(0), st.just(0)),
)


@settings(deadline=None, max_examples=200)
@given(operations=st.lists(_OPERATIONS, max_size=40), window=st.sampled_from([None, 1, 7, 20]), free=st.integers(0, 12))
def test_sums_and_blocks_are_those_of_the_members(
    operations: list[tuple[str, int, int, int]], window: int | None, free: int
) -> None:
    group = DecodeGroup(BLOCK, window, GapLog([DurationHistogram()]))
    members: list[Member] = []
    now = 0

    def leave(member: Member) -> None:
        members.remove(member)
        assert group.leave(member.sequence, member.joined_with) == member.blocks
        assert member.sequence.computed_tokens == member.context

    for row, (what, first, remaining, spare) in enumerate(operations):
        if what == "join":
            sequence = Sequence(row, 0, first, remaining)
            sequence.last_token_ns = now
            blocks = -(-first // BLOCK) + spare
            group.join(sequence, first, remaining, blocks)
            members.append(Member(sequence, first, remaining, blocks, blocks))
        elif what == "leave" and members:
            leave(members[first % len(members)])
        elif what == "advance" and members:
            steps = min(first, group.milestones[0][0] - group.step)  # as `Lane` does: something may happen then
            assert steps >= 1
            ended = group.advance(now, now + steps, [1] * steps)
            now += steps
            for _ in range(steps):
                for member in members:
                    member.step()
            over = [member for member in members if member.remaining == 0]
            assert {id(sequence) for sequence in ended} == {id(member.sequence) for member in over}
            for member in over:
                leave(member)
        shape = BatchShape()
        group.describe(shape)
        assert {name: getattr(shape, name) for name in expected_shape(members, window)} == expected_shape(
            members, window
        )
        # Blocks are known as far ahead as nothing happens to a member.
        horizon = group.milestones[0][0] - group.step if group.milestones else 0
        each = blocks_step_by_step(members, horizon)
        assert [group.blocks_needed(i, 1) for i in range(horizon)] == each
        assert [group.blocks_needed(1, n) for n in range(horizon)] == [sum(each[1 : 1 + n]) for n in range(horizon)]
        counts = np.arange(horizon)
        assert group.blocks_needed_each(counts).tolist() == [sum(each[1 : 1 + n]) for n in range(horizon)]
        lasting = next((n for n in range(horizon) if sum(each[1 : 2 + n]) > free), horizon - 1)
        if horizon > 1:
            assert group.steps_within(free, 1, horizon - 1) == min(lasting, horizon - 1)


def test_sums_by_hand() -> None:
    # Contexts of 5 and 20 tokens attend to 6 and 21; three steps on, to 9 and 24. The window is 8 tokens.
    group = DecodeGroup(16, 8, GapLog([DurationHistogram()]))
    for row, context in enumerate((5, 20)):
        sequence = Sequence(row, 0, context, 50)
        sequence.last_token_ns = 0
        group.join(sequence, context, 50, 2)
    shape = BatchShape()
    group.describe(shape)
    assert (shape.decode_kv, shape.decode_kv_sq, shape.decode_window_kv) == (27, 36 + 441, 6 + 8)
    assert shape.decode_window_growth == 1
    group.advance(0, 20, [10, 10])  # to the step in which the first fills its window
    group.advance(20, 30, [10])
    group.describe(shape)
    assert (shape.decode_kv, shape.decode_kv_sq, shape.decode_window_kv) == (33, 81 + 576, 16)
    assert shape.decode_window_growth == 0
