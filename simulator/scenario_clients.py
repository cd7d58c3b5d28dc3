"""The part of a scenario that says how long clients wait, and what they do when they get no answer."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from simulator.scenario_base import Duration, Part, Seconds

Failure = Literal["timed_out", "rejected", "failed"]

BASE_S = 1.0
MAX_S = 20.0
"""First backoff and longest one, seconds: the AWS SDKs' standard retry mode before 2026, min(random x 2^i, 20 s)."""

BUDGET_SIZE = 10.0
BUDGET_RATIO = 0.1
"""Of a retry budget: ``maxTokens`` and ``tokenRatio`` of the example in gRPC's retry design (A6); Google's clients keep
retries to 10 % of their requests likewise (Site Reliability Engineering, chapter 21)."""


class RetryBudget(Part):
    """How many retries all clients together may add: a bucket of tokens, full at the beginning."""

    size: Annotated[float, Field(ge=1, le=1e9, allow_inf_nan=False)] = BUDGET_SIZE
    """Most tokens that it holds; each retry takes one."""
    ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = BUDGET_RATIO
    """Tokens that each finished request puts back."""


class Retries(Part):
    """What clients do when an attempt has failed; a number: so many retries."""

    max: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Most retries of a request."""
    on: Annotated[tuple[Failure, ...], Field(strict=False, min_length=1)] = ("timed_out", "rejected", "failed")
    """After what they try again: ``timed_out`` (they gave up), ``rejected`` (by admission), ``failed`` (lost with its
    replica). What an engine refuses for good, such as a prompt that is too long, is never tried again."""
    backoff: Literal["exponential", "fixed"] = "exponential"
    """``exponential``: ``base_s * factor^i`` seconds before retry i (from 0), at most ``max_s``. ``fixed``: always
    ``base_s``."""
    base_s: Seconds = BASE_S
    """Seconds before the first retry."""
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    """By how much each is longer than the one before."""
    max_s: Seconds = MAX_S
    """Longest backoff, seconds."""
    jitter: Literal["full", "equal", "none"] = "full"
    """``full``: uniform between 0 and the backoff. ``equal``: half of it, and uniform up to as much again. ``none``."""
    budget: RetryBudget | None = None
    """Bound on all clients' retries together; left out: none."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("on", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Clients(Part):
    """When clients give up, and whether they try again. Left out: they wait for ever."""

    ttft_timeout_s: Duration | None = None
    """Give an attempt up that has no first token after so long, seconds; left out: never."""
    timeout_s: Duration | None = None
    """Give an attempt up that has not ended after so long, seconds; left out: never."""
    deadlines: bool = False
    """Give a request up for good at its own deadline (``deadline_s`` of the trace, seconds after its arrival)."""
    retries: Retries | None = None
    """Try again; left out: a request has one attempt."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ttft_timeout_s is not None and self.timeout_s is not None and self.ttft_timeout_s > self.timeout_s:
            raise ValueError(
                f"'ttft_timeout_s' must be at most 'timeout_s', got {self.ttft_timeout_s:g} and {self.timeout_s:g}"
            )
        return self


__all__ = ["Clients", "Failure", "Retries", "RetryBudget"]
