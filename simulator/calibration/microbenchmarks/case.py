"""What is measured: one kernel at one shape, with the least work that it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

T = TypeVar("T")

ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}
"""Bytes of an element of the types that are measured."""

MAX_SETS = 64
"""Sets of inputs at most. Inputs of less than a 32nd of the L2 cache thus stay in it: what a step hands from kernel to
kernel is there in an engine too."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel at one shape.

    Attributes
    ----------
    operator
        Of the measurement schema.
    kernel
        What runs: ``"triton"``, ``"cublas"``, ...
    shape
        Columns of the schema that say the shape, with their values.
    dtype, weight_dtype, kv_dtype, routing
        Columns of the schema; None where they don't apply.
    flops
        Arithmetic of a call, floating-point operations.
    bytes
        Least bytes that a call reads and writes in device memory (or over PCIe, for copies to and from the host).
    """

    operator: str
    kernel: str
    shape: tuple[tuple[str, int], ...]
    dtype: str | None = None
    weight_dtype: str | None = None
    kv_dtype: str | None = None
    routing: str | None = None
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def key(self) -> Key:
        """What tells it from others, as `simulator.calibration.microbenchmarks.store` finds it in a row."""
        return (
            self.operator,
            self.kernel,
            tuple(sorted(self.shape)),
            self.dtype,
            self.weight_dtype,
            self.kv_dtype,
            self.routing,
        )

    @property
    def group(self) -> tuple[str, str, str]:
        """Cases that are measured one after another and written together."""
        return self.operator, self.kernel, self.dtype or ""

    @property
    def label(self) -> str:
        """The case in a line."""
        types = [t for t in (self.dtype, self.routing, f"KV {self.kv_dtype}" if self.kv_dtype else None) if t]
        return " ".join([self.operator, self.kernel, *types, *(f"{name}={value}" for name, value in self.shape)])

    def __getitem__(self, column: str) -> int:
        """Return the value of a column of the shape."""
        return dict(self.shape)[column]

    def get(self, column: str) -> int | None:
        """Return the value of a column of the shape, None where it has none."""
        return dict(self.shape).get(column)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a case: ``launch(i)`` runs it on the i-th set of inputs."""

    label: str
    launch: Callable[[int], Any]


def variants(choices: Iterable[tuple[str, T]], launch: Callable[[int, T], Any]) -> tuple[Variant, ...]:
    """Return a variant for each labelled choice, a tile for example, that ``launch(i, choice)`` runs."""
    return tuple(Variant(label, partial(_launched, launch, choice)) for label, choice in choices)


def _launched(launch: Callable[[int, T], Any], choice: T, index: int) -> Any:
    return launch(index, choice)


@dataclass(frozen=True, slots=True)
class Work:
    """A case made ready on the device.

    Attributes
    ----------
    variants
        Ways to run it, the quickest of which is measured; at least one.
    sets
        Sets of inputs, used in turn.
    timed
        ``"graph"``: launches captured in a CUDA graph, timed by events; ``"stream"``: launched one by one, timed by
        events; ``"host"``: launched one by one, timed by the host's clock until the device is done.
    """

    variants: tuple[Variant, ...]
    sets: int = 1
    timed: Literal["graph", "stream", "host"] = "graph"


def shape(**columns: int | None) -> tuple[tuple[str, int], ...]:
    """Return columns as a case keeps them; None: left out."""
    return tuple((name, value) for name, value in columns.items() if value is not None)


def sets_beyond_cache(set_bytes: float, cache_bytes: float) -> int:
    """Return how many sets of inputs are used in turn: together twice the L2 cache, `MAX_SETS` at most.

    A set is then out of the cache when its turn comes again.
    """
    return max(1, min(MAX_SETS, -int(-2 * cache_bytes // max(set_bytes, 1.0))))
