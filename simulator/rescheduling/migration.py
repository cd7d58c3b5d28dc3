"""One request on its way from the replica that it runs on to another, which it leaves as late as possible.

As in Llumnix (OSDI 2024, section 4.2; llumlet/migration_coordinator.py): its KV is copied in stages while it goes
on decoding. A stage copies the full blocks that it has by then and that were not copied before; what came meanwhile is
left to the next, much shorter one. When few blocks are left it stops, they are copied, and it goes on at the
destination: the downtime is that of one short copy and of waiting for the next step there, whatever its length. It
stays where it is if it ends or is preempted first, if the destination lacks memory, or if stages don't get shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from simulator.engine.place import Place, release_at_source
from simulator.engine.sequence import DECODING, MOVING, Sequence

if TYPE_CHECKING:
    from policies.protocols import Move
    from simulator.network.flows import FlowGroup
    from simulator.rescheduling.feature import ReschedulingFeature


class Migration:
    """See the module; to `Control` it is a `simulator.engine.control.Transit`.

    Attributes
    ----------
    began_ns, stopped_ns
        When it was asked for, and when the request stopped decoding at the source; -1: not yet.
    stages
        Copies begun, the last one included.
    sent_bytes
        Asked of the links so far.
    """

    def __init__(self, feature: ReschedulingFeature, sequence: Sequence, move: Move, kv_bytes_per_token: int) -> None:
        self.sequence = sequence
        self.move = move
        self.began_ns = feature.control.now_ns
        self.stopped_ns = -1
        self.stages = 0
        self.sent_bytes = 0
        self._feature = feature
        self._control = feature.control
        self._source = feature.control.cluster.replicas[move.source]
        self._bytes_per_token = kv_bytes_per_token
        self._copied = 0  # tokens of its context that are at the destination, or on their way there
        self._flow: FlowGroup | None = None
        self._is_open = True
        self._control.transits[sequence.request_id] = self
        # Room for what it has, and for a block more, so that the last stage needn't wait for any.
        tokens = self._source.context_at(sequence, self.began_ns) + self._source.kv.block_size
        self._place = Place(
            self._control, sequence, move.destination, tokens, self._granted, refused=partial(self._fail, "no memory")
        )

    @property
    def replicas(self) -> tuple[int, int]:
        """Source and destination."""
        return self.move.source, self.move.destination

    # ------------------------------------------------------------------------------------------------ its stages

    def _granted(self, _: int) -> None:
        self._copied = self._place.cached_tokens
        self._source.between_steps(self._stage)

    def _stage(self, now: int) -> None:
        """Begin the next copy, between two steps of the source."""
        if not self._is_open:
            return
        sequence, kv = self.sequence, self._source.kv
        if sequence.state is not DECODING:
            self._fail("preempted")
            return
        context = sequence.context_tokens
        blocks_left = kv.blocks_for(context) - self._copied // kv.block_size
        self.stages += 1
        if blocks_left <= self._feature.last_stage_max_blocks:
            self._source.detach(sequence)
            self.stopped_ns = now
            self._with_room(context, partial(self._send, context, self._last_arrived))
        elif self.stages > self._feature.max_stages:
            self._fail("too many stages")
        else:
            whole = context // kv.block_size * kv.block_size
            self._with_room(context + kv.block_size, partial(self._send, whole, self._one_arrived))

    def _with_room(self, tokens: int, act: Callable[[], None]) -> None:
        """Do something a nanosecond later, when the destination keeps memory for so many tokens."""
        if self._place.tokens >= tokens:
            self._control.soon(lambda: act() if self._is_open else None)
        else:
            self._place.grow(tokens, lambda grown: act() if grown and self._is_open else self._fail("no memory"))

    def _send(self, until: int, arrived: Callable[[int], None]) -> None:
        """Copy the tokens of the context from where the stage before ended."""
        num_bytes = (until - self._copied) * self._bytes_per_token
        self._copied = max(until, self._copied)
        if num_bytes <= 0:
            arrived(self._control.now_ns)
            return
        self.sent_bytes += num_bytes
        source, destination = self.replicas
        self._flow = self._control.network.gpu_to_gpu(source, destination, num_bytes, arrived, label="migration")

    def _one_arrived(self, _: int) -> None:
        if self._is_open:
            self._source.between_steps(self._stage)

    def _last_arrived(self, _: int) -> None:
        if self._is_open:
            self._place.settle(self.sequence, self._settled, entering=self._entering)

    def _entering(self, coming: Sequence, now: int) -> None:
        self._is_open = False
        release_at_source(self._control, self.sequence)
        recorder = self._control.cluster.recorder
        recorder.migrations[coming.request_id] += 1
        self._feature.moved(self, now)

    def _settled(self, _: Sequence, __: int) -> None:
        self._feature.follow(self)

    # ----------------------------------------------------------------------------------------------- interrupted

    def _fail(self, reason: str) -> None:
        """Leave the request where it is; if it had stopped, it goes on there."""
        if not self._is_open:
            return
        sequence = self.sequence
        self._close(reason)
        self._control.transits.pop(sequence.request_id, None)
        self._control.soon(self._resume)

    def ended(self) -> None:
        """Hear that the request has ended at the source."""
        if self._is_open:
            self._close("ended")
            self._control.transits.pop(self.sequence.request_id, None)

    def _close(self, reason: str) -> None:
        self._is_open = False
        self._place.give_up()
        if self._flow is not None and not self._flow.ended:
            self._control.soon(partial(_cancel, self._flow))
        self._feature.failed(self, reason)

    def _resume(self) -> None:
        """Let the request go on at the source, where it has stopped, as soon as one more may run there."""
        sequence, control, source = self.sequence, self._control, self._source
        if sequence.state is not MOVING or not sequence.on_replica:
            return

        def go_on(_: int) -> bool:
            if control.live.get(sequence.request_id) is not sequence or sequence.request_id in control.transits:
                return True
            if sequence.state is not MOVING or not sequence.on_replica:
                return True
            if not source.has_place():
                return False
            source.take_over(sequence)
            return True

        source.between_steps(go_on)

    def abort(self, now_ns: int) -> Sequence:
        """Stop it: the request is taken back, or one of the two replicas is lost."""
        if self._is_open:
            self._close("interrupted")
        return self.sequence

    def destination_lost(self, now_ns: int) -> None:
        """Go on at the source."""
        if self._control.live.get(self.sequence.request_id) is self.sequence:
            self._resume()


def _cancel(flow: FlowGroup) -> None:
    flow.cancel()


__all__ = ["Migration"]
