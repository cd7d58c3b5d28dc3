"""KV kept on a replica for a request that is to come from another one, and its coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulator.engine.sequence import Sequence

if TYPE_CHECKING:
    from simulator.engine.control import Control
    from simulator.engine.lane import Between


class Place:
    """Blocks on a replica for the context of a request that is elsewhere; a prefix that is cached there is used.

    Whatever it does elsewhere, it does a nanosecond later (`Control.soon`), so that it may be used at any time.

    It asks for them between two steps of that replica, again before every step until they are free: requests whose
    place comes late wait where they are, and that is the back-pressure of a full memory.

    Parameters
    ----------
    sequence
        The request, as it stands on the replica that it comes from.
    index
        Replica that it is to go to; where it is dead, the blocks are there when it is up again at the earliest.
    tokens
        Context to keep room for.
    granted
        Called with the time in ns when the blocks are there, unless it was given up or they were lost.
    keep_free_blocks
        Blocks that must be left free beside them, or what says so each time that it asks.
    refused
        Called if the blocks aren't free the first time that it asks, which is then the last; None: it asks again.

    Attributes
    ----------
    cached_tokens
        Tokens found in the prefix cache there, which needn't be sent.
    is_granted
        Whether the blocks are there.
    tokens
        Context that there is room for, or will be.
    """

    def __init__(
        self,
        control: Control,
        sequence: Sequence,
        index: int,
        tokens: int,
        granted: Callable[[int], None],
        *,
        keep_free_blocks: int | Callable[[], int] = 0,
        refused: Callable[[], None] | None = None,
    ) -> None:
        self.index = index
        self.cached_tokens = 0
        self.is_granted = False
        self._control = control
        self._replica = control.cluster.replicas[index]
        self._coming = sequence.successor()
        self._coming.prefill_target = max(tokens, 1)
        self.tokens = tokens
        self._granted = granted
        self._keep_free_blocks = keep_free_blocks
        self._refused = refused
        self._is_open = True
        self._losses = self._replica.losses
        self._between_steps(self._ask)

    def _between_steps(self, act: Between) -> None:
        self._control.soon(lambda: self._replica.between_steps(act))

    def _ask(self, now: int) -> bool:
        if not self._is_open:
            return True
        if not self._control.is_alive(self.index):
            return False  # nobody answers until it is up again, or whoever asks gives up
        kv, coming = self._replica.kv, self._coming
        cached = kv.cached_tokens(coming)
        keep_free = self._keep_free_blocks
        if not kv.admit(coming, self.tokens, keep_free if isinstance(keep_free, int) else keep_free()):
            if self._refused is None:
                return False
            self._control.soon(self._refused)
            return True
        self.cached_tokens, self.is_granted, self._losses = cached, True, self._replica.losses
        self._control.soon(self._tell)
        return True

    def _tell(self) -> None:
        if self._is_open and self._losses == self._replica.losses:
            self._granted(self._control.now_ns)

    def grow(self, tokens: int, grown: Callable[[bool], None]) -> None:
        """Ask once for room for a longer context, between two steps there; ``grown`` is told whether there was any."""

        def ask(_: int) -> None:
            kv, coming = self._replica.kv, self._coming
            need = max(0, kv.blocks_for(tokens) - kv.held_by(coming))
            enough = self._is_open and self._losses == self._replica.losses and need <= kv.free_blocks
            if enough:
                kv.take(need)
                coming.private_blocks += need
                self.tokens = max(tokens, self.tokens)
            self._control.soon(lambda: grown(enough and self._is_open))

        self._between_steps(ask)

    def give_up(self) -> None:
        """Keep the blocks no longer, or stop asking for them; blocks of a replica that was lost are gone anyway."""
        self._is_open = False
        if self.is_granted:
            self.is_granted = False
            self._between_steps(self._release)

    def _release(self, _: int) -> None:
        if self._replica.losses == self._losses:
            self._replica.kv.release(self._coming)

    def settle(
        self,
        sequence: Sequence,
        settled: Callable[[Sequence, int], None] | None = None,
        *,
        entering: Callable[[Sequence, int], None] | None = None,
    ) -> None:
        """Let the request run on here, between two steps, as soon as one more may run; its KV must be here.

        Parameters
        ----------
        sequence
            The request on the replica that it comes from, detached there or withdrawn, its progress written back.
        settled
            Called with the sequence that it is from now on, and the time in ns.
        entering
            Called likewise just before it joins the running requests there, its progress taken over.
        """

        def take_over(now: int) -> bool:
            if not self._is_open:
                return True
            if not self._replica.has_place():
                return False
            self._is_open = self.is_granted = False
            control, coming = self._control, self._coming
            coming.carry_on(sequence)
            if sequence.on_replica:
                control.cluster.left(sequence)
            control.transits.pop(coming.request_id, None)
            control.live[coming.request_id] = coming
            control.cluster.arrive_at(coming, self.index)
            if entering is not None:
                entering(coming, now)
            self._replica.take_over(coming)
            if settled is not None:
                control.soon(lambda: settled(coming, control.now_ns))
            return True

        self._between_steps(take_over)


def release_at_source(control: Control, sequence: Sequence) -> None:
    """Free the KV of a detached sequence that runs on elsewhere, between two steps of the replica that it was on."""
    replica = control.replica_of(sequence)
    losses = replica.losses

    def release(_: int) -> None:
        if replica.losses == losses:
            replica.kv.release(sequence)

    control.soon(lambda: replica.between_steps(release))


__all__ = ["Place", "release_at_source"]
