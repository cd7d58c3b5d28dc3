"""Clients as a feature of a cluster: each waits for its answer so long, gives up, and perhaps tries again.

A client that gives up closes its connection: the server takes the request out of its batch or queue at its next step
boundary, and what it computed is lost. Retries come on top of what arrives anyway, which is how a short overload can
keep itself going (a metastable failure); the section's timeline shows it.

Not modelled: the way between client and server, clients that answer a limit by sending less of what is to come
(adaptive throttling), retries elsewhere than at this cluster.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.engine.clock import NS_PER_S, Boundary, to_ns, to_s
from simulator.engine.control import Control
from simulator.engine.recorder import Outcome
from simulator.engine.sequence import Sequence as Request
from simulator.rng import CLIENTS, stream
from simulator.scenario_clients import Clients, Retries

if TYPE_CHECKING:
    from collections.abc import Sequence

BINS = 60
"""Intervals of the section's timeline."""

_WORDS = {"ttft": "no first token", "total": "no end of the answer", "deadline": "not done by its deadline"}


class _Client:
    """A client with a request under way.

    Attributes
    ----------
    retries
        How often it has tried again.
    giving_up
        Why it is taking its request back just now; empty if it isn't.
    is_final
        It won't try again, whatever comes: its deadline has passed, or its request is being ended.
    noted
        Its last attempt is counted as one that failed.
    held
        Its request while it waits before a retry, else None.
    """

    __slots__ = ("deadline_ns", "giving_up", "held", "is_final", "noted", "retries", "retry", "rng", "timers")

    def __init__(self) -> None:
        self.retries = 0
        self.giving_up = ""
        self.is_final = self.noted = False
        self.held: Request | None = None
        self.retry: Boundary | None = None
        self.timers: list[Boundary] = []
        self.deadline_ns: int | None = None
        self.rng: np.random.Generator | None = None


class ClientsFeature:
    """See the module; to `Control` it is a `simulator.engine.control.Feature`.

    Parameters
    ----------
    seed
        Of the run: every client draws its jitter from a stream of its own.
    deadlines_s
        Of each request, seconds after its arrival, NaN for none; None: nobody has one.
    """

    name = "clients"

    def __init__(self, part: Clients, seed: int, deadlines_s: npt.NDArray[np.float64] | None = None) -> None:
        self._part = part
        self._seed = seed
        self._deadlines_s = deadlines_s
        self._clients: dict[int, _Client] = {}
        self._budget = 0.0 if part.retries is None or part.retries.budget is None else part.retries.budget.size
        self._log = _Log()

    def attach(self, control: Control) -> None:
        """Hear of requests before they are routed, and of their ends."""
        self._control = control
        control.before_routing.append(self._sent)
        control.before_end.append(self._to_end)
        control.on_end.append(self._ended)

    # ------------------------------------------------------------------------------------------------- attempts

    def _sent(self, sequence: Request, now: int) -> bool:
        """Let the client's clock begin when a request is first seen; what the server does with it later is its own."""
        if sequence.request_id not in self._clients:
            self._meet(sequence, now)
            self._begin(sequence.request_id, now)
        return False

    def _meet(self, sequence: Request, now: int) -> _Client:
        """Note a request's client."""
        row = sequence.request_id
        client = self._clients[row] = _Client()
        self._log.attempts.append(now)
        if self._deadlines_s is not None and not np.isnan(deadline_s := float(self._deadlines_s[row])):
            client.deadline_ns = sequence.arrival_ns + to_ns(deadline_s)
            client.timers.append(self._control.at(max(0, client.deadline_ns - now), partial(self._deadline, row)))
        return client

    def _begin(self, row: int, now: int) -> None:
        """Let the times of an attempt run."""
        client, part = self._clients[row], self._part
        for cause, after_s in (("ttft", part.ttft_timeout_s), ("total", part.timeout_s)):
            if after_s is not None:
                act = partial(self._timeout, row, client.retries, cause)
                client.timers.append(self._control.at(to_ns(after_s), act))

    def _timeout(self, row: int, attempt: int, cause: str) -> None:
        client = self._clients.get(row)
        if client is None or client.retries != attempt or client.held is not None or client.giving_up:
            return
        if cause == "ttft" and self._control.cluster.recorder.first_token[row] >= 0:
            return
        self._give_up(row, client, cause)

    def _deadline(self, row: int) -> None:
        client = self._clients.get(row)
        if client is None:
            return
        client.is_final = True
        if client.held is not None:
            assert client.retry is not None
            self._control.cancel(client.retry)
            self._log.timeouts["deadline"] += 1
            self._control.conclude(client.held, self._control.now_ns, Outcome.TIMED_OUT, self._said("deadline"))
        elif not client.giving_up:
            self._give_up(row, client, "deadline")

    def _give_up(self, row: int, client: _Client, cause: str) -> None:
        client.giving_up = cause
        self._control.withdraw(row, self._withdrawn)

    def _withdrawn(self, sequence: Request, now: int) -> None:
        """Have the request back from the server: the attempt is over."""
        client = self._clients[sequence.request_id]
        cause, client.giving_up = client.giving_up, ""
        self._log.timeouts[cause] += 1
        if not self._tries_again(client, sequence, now, Outcome.TIMED_OUT):
            client.is_final = True
            self._control.conclude(sequence, now, Outcome.TIMED_OUT, self._said(cause))

    def _to_end(self, sequence: Request, now: int, outcome: Outcome, reason: str) -> bool:
        """Take over an attempt that the server gives up, if its client tries again."""
        client = self._clients.get(sequence.request_id) or self._meet(sequence, now)
        if client.is_final:
            return False
        if client.giving_up:
            self._control.hold(sequence)  # it comes to `_withdrawn`
            return True
        return self._tries_again(client, sequence, now, outcome)

    def _said(self, cause: str) -> str:
        part = self._part
        after_s = {"ttft": part.ttft_timeout_s, "total": part.timeout_s}.get(cause)
        return f"its client gave up: {_WORDS[cause]}" + ("" if after_s is None else f" after {after_s:g} s")

    # -------------------------------------------------------------------------------------------------- retries

    def _tries_again(self, client: _Client, sequence: Request, now: int, outcome: Outcome) -> bool:
        """Note a failed attempt; hold the request and come back later, unless that was the last one."""
        self._log.fail(outcome, now)
        client.noted = True
        retries = self._part.retries
        if retries is None or outcome.name.lower() not in retries.on or client.is_final:
            return False
        if client.retries >= retries.max:
            self._log.used_up += 1
            return False
        row = sequence.request_id
        delay_ns = max(1, to_ns(self._backoff_s(client, row, retries)))
        if client.deadline_ns is not None and now + delay_ns >= client.deadline_ns:
            self._log.too_late += 1
            return False
        if retries.budget is not None:
            if self._budget < 1:
                self._log.over_budget += 1
                return False
            self._budget -= 1
        for timer in client.timers[0 if client.deadline_ns is None else 1 :]:
            self._control.cancel(timer)
        del client.timers[0 if client.deadline_ns is None else 1 :]
        client.retries += 1
        client.noted = False
        client.held = self._control.hold(sequence)
        client.retry = self._control.at(delay_ns, partial(self._again, row))
        return True

    def _backoff_s(self, client: _Client, row: int, retries: Retries) -> float:
        """Return how long to wait, seconds."""
        longest = retries.base_s
        if retries.backoff == "exponential":
            for _ in range(client.retries):
                longest = min(retries.max_s, longest * retries.factor)
            longest = min(retries.max_s, longest)
        if retries.jitter == "none":
            return longest
        if client.rng is None:
            client.rng = stream(self._seed, f"{CLIENTS}.{row}")
        drawn = float(client.rng.random())
        return longest * (drawn if retries.jitter == "full" else 0.5 + 0.5 * drawn)

    def _again(self, row: int) -> None:
        client, now = self._clients[row], self._control.now_ns
        held, client.held, client.retry = client.held, None, None
        assert held is not None
        self._log.attempts.append(now)
        self._log.retries.append(now)
        self._begin(row, now)
        self._control.try_again(held, now)

    def _ended(self, sequence: Request, now: int, outcome: Outcome) -> None:
        client = self._clients.pop(sequence.request_id, None)
        if client is not None:
            for timer in client.timers:
                self._control.cancel(timer)
            if outcome is not Outcome.FINISHED and not client.noted:
                self._log.fail(outcome, now)  # an engine refused it, for good
        if outcome is not Outcome.FINISHED:
            return
        self._log.finished.append(now)
        if self._part.retries is not None and (budget := self._part.retries.budget) is not None:
            self._budget = min(budget.size, self._budget + budget.ratio)

    def describe(self) -> dict[str, Any]:
        """Return the section of the summary."""
        return self._log.describe(self._control.cluster.end_ns)


class _Log:
    """What clients did: times in ns."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.retries: list[int] = []
        self.finished: list[int] = []
        self.failures: list[int] = []
        self.failed: Counter[Outcome] = Counter()
        self.timeouts: Counter[str] = Counter()
        self.used_up = self.over_budget = self.too_late = 0

    def fail(self, outcome: Outcome, now: int) -> None:
        """Note an attempt that came to nothing."""
        self.failed[outcome] += 1
        self.failures.append(now)

    def describe(self, end_ns: int) -> dict[str, Any]:
        """Return it as figures."""
        attempts, requests = len(self.attempts), len(self.attempts) - len(self.retries)
        span_s = to_s(end_ns)
        return {
            "requests": requests,
            "attempts": attempts,
            "retries": len(self.retries),
            "attempts_per_request": attempts / requests if requests else None,
            "failed_attempts": {
                outcome.name.lower(): self.failed[outcome]
                for outcome in (Outcome.TIMED_OUT, Outcome.REJECTED, Outcome.FAILED)
            },
            "gave_up": {cause: self.timeouts[key] for key, cause in _CAUSES.items()},
            "not_retried": {
                "retries_used_up": self.used_up,
                "budget_empty": self.over_budget,
                "deadline_too_near": self.too_late,
            },
            "offered_attempts_per_s": attempts / span_s if span_s else None,
            "finished_requests_per_s": len(self.finished) / span_s if span_s else None,
            "finished_per_attempt": len(self.finished) / attempts if attempts else None,
            "timeline": self._timeline(end_ns),
        }

    def _timeline(self, end_ns: int) -> dict[str, Any]:
        """Return how many attempts began, failed and finished in each of `BINS` intervals of the run."""
        width = max(1, -(-(end_ns + 1) // BINS))
        series = {
            "attempts": self.attempts,
            "retries": self.retries,
            "failed_attempts": self.failures,
            "finished": self.finished,
        }
        return {"bin_s": width / NS_PER_S} | {name: _counts(times, width) for name, times in series.items()}


_CAUSES = {"ttft": "before_first_token", "total": "before_the_end", "deadline": "at_the_deadline"}


def _counts(times_ns: Sequence[int], width_ns: int) -> list[int]:
    found = np.bincount(np.array(times_ns, dtype=np.int64) // width_ns, minlength=BINS)
    counts: list[int] = found.tolist()
    return counts


__all__ = ["BINS", "ClientsFeature"]
