"""The part of a scenario that says what breaks, who notices when, and what becomes of the requests."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from simulator.scenario_base import Count, Duration, Factor, Part, Seconds
from simulator.scenario_start import EngineStart

What = Literal["replica", "gpu", "node", "link", "nic", "straggler", "slow-start"]

PROBE_INTERVAL_S, PROBE_TIMEOUT_S, PROBE_FAILURES, PROBE_SUCCESSES = 10.0, 1.0, 3, 1
"""Kubernetes' defaults of probes: ``periodSeconds``, ``timeoutSeconds``, ``failureThreshold``, ``successThreshold``."""

MAX_RETRIES = 2
"""Three attempts in all: the per-request retry budget of Site Reliability Engineering (2016), chapter 21."""

_LLAMA_HOURS, _LLAMA_GPUS, _LLAMA_NODES = 54 * 24, 16_384, 2_048
MTBF_H = {
    "gpu": _LLAMA_HOURS * _LLAMA_GPUS / (148 + 72 + 19 + 17 + 6 + 6),
    "node": _LLAMA_HOURS * _LLAMA_NODES / (32 + 3 + 3 + 2 + 2 + 2 + 2),
    "process": _LLAMA_HOURS * _LLAMA_NODES / 54,
    "nic": _LLAMA_HOURS * _LLAMA_GPUS / (7 + 35),
}
"""Mean time between failures, hours: unexpected interruptions of Llama 3 405B's pre-training, 54 days on 16,384 H100
in 2,048 servers of 8 (Llama Team, The Llama 3 Herd of Models, arXiv 2407.21783, table 5). A GPU: faulty GPU (NVLink
included), HBM3, SRAM, system processor, silent corruption, thermal interface; 79,200 h. A node: host maintenance, SSD,
power supply, chassis, IO board, CPU, memory; 57,700 h. A process: software bugs, one process group a server (training
software, which stands in for serving engines); 49,200 h. An interface with its cable: NIC, network switch and cable,
one a GPU; 505,600 h."""


class ScriptedFault(Part):
    """Something that breaks at a given time."""

    at_s: Seconds
    """When, seconds."""
    what: What
    """``replica``: its process dies. ``gpu``, ``node``: replicas that use it die. ``link``, ``nic``: less bandwidth (an
    interface: both ways). ``straggler``: a replica's steps take longer. ``slow-start``: a replica restarts."""
    which: int | Annotated[str, Field(min_length=1)]
    """``replica``, ``straggler``, ``slow-start``: its number, from 0 through all pools. ``node``: its number. ``gpu``:
    ``node0/gpu3``. ``nic``: ``node0/nic1``. ``link``: its name in the result's ``links``."""
    for_s: Duration | None = None
    """Until it is repaired, seconds; a ``slow-start``: for how long the replica is slow then. Left out: for ever."""
    until_s: Duration | None = None
    """The same as a time of the run, seconds."""
    factor: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False)] | None = None
    """``link``, ``nic``: share of the bandwidth that is left, 0 to 1; left out: 0. ``straggler``, ``slow-start``: how
    many times as long steps take, at least 1."""
    off_s: Duration | None = None
    """``link``, ``nic``: it flaps, bad for so long and good for ``on_s``, again and again, seconds."""
    on_s: Duration | None = None
    """See ``off_s``."""

    @property
    def lasts_s(self) -> float | None:
        """Seconds until it is repaired; None: for ever."""
        return self.until_s - self.at_s if self.until_s is not None else self.for_s

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.until_s is not None and self.for_s is not None:
            raise ValueError("give 'for_s' or 'until_s', not both")
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"'until_s' must be above 'at_s', got {self.until_s:g} and {self.at_s:g}")
        numbered = self.what in ("replica", "straggler", "slow-start", "node")
        if numbered and (not isinstance(self.which, int) or self.which < 0):
            raise ValueError(f"'which' of a {self.what} is its number, from 0, got {self.which!r}")
        if not numbered and not isinstance(self.which, str):
            example = {"gpu": "node0/gpu3", "nic": "node0/nic1", "link": "node0/nic1/tx"}[self.what]
            raise ValueError(f"'which' of a {self.what} is its name, such as {example!r}, got {self.which!r}")
        if self.what in ("link", "nic"):
            if self.factor is not None and self.factor > 1:
                raise ValueError(
                    f"'factor' of a {self.what} is the share of bandwidth left, 0 to 1, got {self.factor:g}"
                )
        elif self.what in ("straggler", "slow-start"):
            if self.factor is not None and self.factor < 1:
                raise ValueError(f"'factor' of a {self.what} is how many times as long steps take, got {self.factor:g}")
            if self.what == "straggler" and self.factor is None:
                raise ValueError("a straggler needs 'factor', how many times as long its steps take")
        elif self.factor is not None:
            raise ValueError(f"'factor' is for links and for what is slow, not for a {self.what}")
        if (self.on_s is None) != (self.off_s is None):
            raise ValueError("what flaps needs both 'off_s' and 'on_s'")
        if self.on_s is not None and self.what not in ("link", "nic"):
            raise ValueError(f"only a link or a nic flaps ('off_s', 'on_s'), not a {self.what}")
        return self


class RandomKind(Part):
    """Components of one kind that break at random, each on its own, and are repaired."""

    mtbf_h: Factor | None = None
    """Mean time from a repair to the next failure of one component, hours; left out: as in the training of Llama 3."""
    mttr_s: Duration
    """Mean time to repair, seconds, without the replica's restart."""
    shape: Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)] = 1.0
    """Shape of the Weibull distribution of the time to failure: 1 is exponential, below 1 failures come in clusters,
    above 1 with age."""
    repair: Literal["exponential", "fixed"] = "exponential"
    """Distribution of the time to repair."""
    factor: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """``nic``, ``link``: share of the bandwidth that is left meanwhile."""


class RandomFaults(Part):
    """What breaks at random. A kind that is left out doesn't."""

    gpu: RandomKind | None = None
    """GPUs of replicas: the replica dies."""
    node: RandomKind | None = None
    """Servers: all replicas with a GPU in it die."""
    process: RandomKind | None = None
    """Engines: one replica dies."""
    nic: RandomKind | None = None
    """Network interfaces with their cables."""
    link: RandomKind | None = None
    """Bundles of links between leaf switches and the spine; needs ``mtbf_h``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.link is not None and self.link.mtbf_h is None:
            raise ValueError("'link' needs 'mtbf_h': there is no published figure for it")
        return self


class HealthCheck(Part):
    """How it is noticed that a replica is dead, or up again."""

    kind: Literal["probes", "immediate"] = "probes"
    """``probes``: every replica is probed at multiples of ``interval_s``; until it is marked down, routers choose it,
    and what is sent there has no answer. ``immediate``: everybody knows at once."""
    interval_s: Duration = PROBE_INTERVAL_S
    """Time between probes, seconds."""
    timeout_s: Duration = PROBE_TIMEOUT_S
    """A probe that has no answer for so long has failed, seconds."""
    failures: Count = PROBE_FAILURES
    """Failed probes in a row until a replica is marked down."""
    successes: Count = PROBE_SUCCESSES
    """Answered probes in a row until it is marked up again."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Restart(EngineStart):
    """What a replica does between its repair and serving again."""

    slow_factor: Annotated[float, Field(ge=1, le=1e3, allow_inf_nan=False)] = 1.0
    """By how much its steps take longer at first."""
    slow_s: Seconds = 0.0
    """For how long, seconds."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"init_s": float(value), "weights": "none"}
        return value


class Faults(Part):
    """What breaks. Left out: nothing does."""

    script: Annotated[tuple[ScriptedFault, ...], Field(strict=False)] = ()
    """Faults at given times."""
    random: RandomFaults = Field(default_factory=lambda: RandomFaults())
    """Faults at random times."""
    health: HealthCheck = Field(default_factory=lambda: HealthCheck())
    """Who notices when."""
    restart: Restart = Field(default_factory=lambda: Restart())
    """How a replica comes back; a number: that many seconds, weights included."""
    on_loss: Literal["retry", "recompute", "fail"] = "retry"
    """What the gateway does with the requests of a replica that it found dead. ``retry``: begins them anew elsewhere.
    ``recompute``: has prompts and the tokens so far computed again elsewhere, and goes on from there. ``fail``: tells
    their clients."""
    max_retries: Annotated[int, Field(ge=0, le=10_000)] = MAX_RETRIES
    """How often it does so for one request before it fails."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and all(isinstance(each, Mapping) for each in value):
            return {"script": list(value)}
        return value


__all__ = ["MTBF_H", "Faults", "HealthCheck", "RandomFaults", "RandomKind", "Restart", "ScriptedFault", "What"]
