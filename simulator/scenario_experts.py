"""Keys on routed experts: how tokens spread over them, where they are, how ranks exchange tokens."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from simulator.scenario_base import Part, PolicyRef


class ParallelismRef(PolicyRef):
    """The policy that places experts, and copies of them, on ranks."""

    kind: ClassVar[str] = "parallelism"


class BalancingRef(PolicyRef):
    """The policy that chooses the attention data parallel rank of a request within its replica."""

    kind: ClassVar[str] = "balancing"


class PrefillBalance(Part):
    """Prompts begin when every attention data parallel rank has one: TensorRT-LLM's ``attention_dp_config``."""

    timeout_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Steps after which prompts begin although some rank has none (``timeout_iters``)."""
    batching_wait_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    """Steps to wait for more prompts when all ranks have one (``batching_wait_iters``)."""


class Routing(Part):
    """How tokens spread over a layer's experts, the same in every layer; a name alone will do."""

    kind: Literal["measured", "uniform", "zipf", "power-law", "given"] = "measured"
    """``measured``: as the kernel tables were measured (a power law of exponent 1.2 on the busiest rank; the data sheet
    and layer profiles: uniform). ``uniform``. ``zipf``: the i-th most popular expert gets i^-exponent, in random
    places. ``power-law``: loads drawn from a density x^-exponent, as the tables' collectors do. ``given``:
    ``loads``."""
    exponent: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Of ``zipf`` and ``power-law``."""
    loads: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """Load of each expert in any unit, as measured on traffic (``given``)."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("loads", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (
            tuple(float(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in value)
            if (isinstance(value, list | tuple))
            else value
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.exponent is not None) != (self.kind in ("zipf", "power-law")):
            raise ValueError("'exponent' is needed by the routings zipf and power-law, and by no other")
        if (self.loads is not None) != (self.kind == "given"):
            raise ValueError("'loads' are needed by the routing 'given', and by no other")
        return self


class Experts(Part):
    """Routed experts: routing, placement, exchange."""

    routing: Routing = Field(default_factory=lambda: Routing())
    """How tokens spread over experts."""
    placement: ParallelismRef = Field(default_factory=lambda: ParallelismRef(name="linear"))
    """Which experts each expert parallel rank holds; another than ``linear`` needs a stated routing."""
    redundant: Annotated[int, Field(ge=0, le=4096)] = 0
    """Copies of experts beside the experts, over all ranks; they take memory on each."""
    exchange: Literal["allgather", "deepep", "deepep-low-latency", "deepep-high-throughput"] = "allgather"
    """How attention data parallel ranks exchange tokens. ``allgather``: all tokens to all, and reduce-scatter back (the
    engines' default). ``deepep-...``: all-to-all to the experts' ranks, DeepEP's kernels; ``deepep``: high throughput
    in steps with prefill chunks, low latency in others."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.routing.kind == "measured" and self.placement.name != "linear":
            raise ValueError(
                f"placement {self.placement.name!r} needs a stated routing (uniform, zipf, power-law, given): tables "
                "were measured with experts one after the other"
            )
        if self.routing.kind == "measured" and self.redundant:
            raise ValueError("'redundant' needs a stated routing (uniform, zipf, power-law, given)")
        return self
