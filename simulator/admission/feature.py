"""Admission control as a feature of a cluster: asks the policy of every attempt, and knows how those let in get on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.protocols import AdmissionPolicy, PolicyError
from simulator.engine.clock import NS_PER_S
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request

if TYPE_CHECKING:
    from policies.protocols import ReplicaLoadView


class View:
    """What the policy sees: a `policies.protocols.AdmissionView`.

    First tokens are noted when somebody asks, by looking at all requests that had none: what a gateway would see at
    once. Only whole steps that have ended count, so it is the same in a fast-forwarded run.
    """

    def __init__(self, control: Control, rng: np.random.Generator) -> None:
        self._control = control
        self._rng = rng
        self._first_token = control.cluster.recorder.first_token
        self._waiting: dict[int, int] = {}  # prompt tokens by row
        self._decoding: dict[int, int] = {}  # when the first token came, by row
        self._decoded_ns = self._num_decoded = 0
        self.waiting_tokens = self.started_tokens = 0

    @property
    def now_s(self) -> float:
        """The time."""
        return self._control.arrivals.now_s

    @property
    def num_replicas(self) -> int:
        """Replicas that take requests now."""
        return self._control.arrivals.num_replicas

    @property
    def replica_ids(self) -> Sequence[int]:
        """Which they are."""
        return self._control.arrivals.replica_ids

    @property
    def outstanding_requests(self) -> npt.NDArray[np.int64]:
        """Requests sent to each that have not ended."""
        return self._control.arrivals.outstanding_requests

    @property
    def outstanding_tokens(self) -> npt.NDArray[np.int64]:
        """Their tokens."""
        return self._control.arrivals.outstanding_tokens

    @property
    def loads(self) -> Sequence[ReplicaLoadView]:
        """What each reports."""
        return self._control.arrivals.loads

    @property
    def rng(self) -> np.random.Generator:
        """The policy's stream."""
        return self._rng

    @property
    def waiting_requests(self) -> int:
        """Requests let in without a first token."""
        return len(self._waiting)

    def decoding(self, since_s: float) -> int:
        """Return how many got their first token since then and have not ended."""
        since_ns = since_s * NS_PER_S
        return sum(first_ns >= since_ns for first_ns in self._decoding.values())

    @property
    def mean_decode_s(self) -> float:
        """Mean time of decoding so far, NaN without any."""
        return self._decoded_ns / self._num_decoded / NS_PER_S if self._num_decoded else float("nan")

    # ------------------------------------------------------------------------------------------- what it is told

    def let_in(self, row: int, prompt_tokens: int) -> None:
        """Count a request that was let in; not as one that decodes any more, if an attempt before got so far."""
        self._decoding.pop(row, None)
        if row not in self._waiting:
            self._waiting[row] = prompt_tokens
            self.waiting_tokens += prompt_tokens

    def look(self) -> None:
        """Note the first tokens that came since."""
        first_token = self._first_token
        for row in [row for row in self._waiting if first_token[row] >= 0]:
            self._started(row)

    def _started(self, row: int) -> None:
        prompt = self._waiting.pop(row)
        self.waiting_tokens -= prompt
        self.started_tokens += prompt
        self._decoding[row] = self._first_token[row]

    def forget(self, row: int) -> None:
        """Count a request no more, whose attempt came to nothing."""
        self.waiting_tokens -= self._waiting.pop(row, 0)
        self._decoding.pop(row, None)

    def ended(self, row: int, now: int, outcome: Outcome) -> None:
        """Count a request as one that has ended."""
        if row in self._waiting and self._first_token[row] >= 0:
            self._started(row)
        if row in self._decoding and outcome is Outcome.FINISHED:
            self._decoded_ns += now - self._decoding[row]
            self._num_decoded += 1
        self.forget(row)


class AdmissionFeature:
    """See the module; to `Control` it is a `simulator.engine.control.Feature`.

    Parameters
    ----------
    rng
        The policy's stream of random numbers.
    """

    name = "admission"

    def __init__(self, policy: AdmissionPolicy, rng: np.random.Generator) -> None:
        self._policy = policy
        self._rng = rng
        self._asked = 0
        self._reasons: dict[str, int] = {}
        self._attempt: dict[int, int] = {}  # that was let in, by row

    def attach(self, control: Control) -> None:
        """Be asked before requests are routed."""
        self._control = control
        self._view = View(control, self._rng)
        control.before_routing.append(self._ask)
        control.before_end.append(self._gave_up)
        control.on_end.append(self._ended)

    def _ask(self, sequence: Request, now: int) -> bool:
        """Ask the policy of an attempt; one that was let in goes on wherever it is sent then."""
        control, row = self._control, sequence.request_id
        attempt = control.cluster.recorder.attempts[row]
        if self._attempt.get(row) == attempt:
            return False
        view = self._view
        view.look()
        self._asked += 1
        if not view.num_replicas:
            reason = ""  # it waits for a replica
        else:
            reason = self._policy.admit(control.cluster.arrival_view(sequence), view)
            if not isinstance(reason, str):
                raise PolicyError(f"admission policy {self._policy.name!r} returned {reason!r}, not a text")
        if reason:
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
            view.forget(row)
            control.conclude(sequence, now, Outcome.REJECTED, f"not admitted: {reason}")
            return True
        self._attempt[row] = attempt
        view.let_in(row, sequence.prompt_tokens)
        return False

    def _gave_up(self, sequence: Request, now: int, outcome: Outcome, reason: str) -> bool:
        """Hear that an attempt has come to nothing, whatever follows."""
        self._view.forget(sequence.request_id)
        return False

    def _ended(self, sequence: Request, now: int, outcome: Outcome) -> None:
        self._attempt.pop(sequence.request_id, None)
        self._view.ended(sequence.request_id, now, outcome)

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary."""
        rejected = sum(self._reasons.values())
        return {
            "policy": self._policy.name,
            "attempts": self._asked,
            "admitted": self._asked - rejected,
            "rejected": rejected,
            "rejected_share": rejected / self._asked if self._asked else None,
            "reasons": dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))),
        }


__all__ = ["AdmissionFeature", "View"]
