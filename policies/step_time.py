"""A predictor of step times that a policy fits to a profile of its engine: linear in a few features of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from policies.protocols import LimitsView, StepTimer

_SCALE = 1000.0  # tokens: keeps the squares of features near 1, so that the equations are well conditioned


@dataclass(frozen=True)
class LinearStepTime:
    """Time of a step as a sum of features, each times a coefficient of at least 0, so that it never falls with load.

    The features: 1, prompt tokens and their square, context tokens of decodes and their square, number of chunks,
    number of decodes.

    Attributes
    ----------
    coefficients
        Seconds for each feature, tokens in thousands; shape (7,).
    """

    coefficients: tuple[float, ...]

    def __call__(self, prompt_tokens: int, chunks: int, decodes: int, context_tokens: int) -> float:
        """Return the time of a step, seconds."""
        one, prompt, prompt_sq, context, context_sq, chunk, decode = self.coefficients
        p, c = prompt_tokens / _SCALE, context_tokens / _SCALE
        return one + (prompt + prompt_sq * p) * p + (context + context_sq * c) * c + chunk * chunks + decode * decodes


def fit_step_time(step_s: StepTimer, limits: LimitsView, kv_tokens: int) -> LinearStepTime:
    """Fit the predictor to an engine, asking it for the times of a grid of batches; least squares of relative errors.

    Arithmetic in plain numbers, exactly rounded sums: the same on every processor.

    Parameters
    ----------
    step_s
        Time of a step, None where the engine can't tell.
    kv_tokens
        Tokens that fit the KV memory.
    """
    rows, times = [], []
    for chunks, decodes, context in profile_grid(limits, kv_tokens):
        time = step_s(chunks, decodes, context)
        if time is not None:
            rows.append(_features(sum(new for new, _ in chunks), len(chunks), decodes, decodes * context))
            times.append(time)
    return LinearStepTime(_non_negative_fit(rows, times))


def profile_grid(limits: LimitsView, kv_tokens: int) -> list[tuple[list[tuple[int, int]], int, int]]:
    """Return batches to profile: chunks as (new, cached), decodes, and context tokens of each decode."""
    most = limits.max_num_batched_tokens
    sizes = sorted({min(most, size) for size in (32, 128, 512, most)})
    prompts: list[list[tuple[int, int]]] = [[], *([(size, 0)] for size in sizes), [(sizes[-1] // 2 or 1, 1024)]]
    prompts.append([(sizes[-1] // 2 or 1, 0)] * 2)
    grid: list[tuple[list[tuple[int, int]], int, int]] = []
    for chunks in prompts:
        if chunks:
            grid.append((chunks, 0, 0))
        for decodes in sorted({min(limits.max_num_seqs, each) for each in (1, 8, 32, 128)}):
            grid += [
                (chunks, decodes, context)
                for context in (128, 1024, 4096)
                if decodes * context <= kv_tokens and context < limits.max_model_len
            ]
    return grid


def _features(prompt_tokens: int, chunks: int, decodes: int, context_tokens: int) -> list[float]:
    p, c = prompt_tokens / _SCALE, context_tokens / _SCALE
    return [1.0, p, p * p, c, c * c, float(chunks), float(decodes)]


def _non_negative_fit(rows: Sequence[Sequence[float]], times: Sequence[float]) -> tuple[float, ...]:
    """Fit with all features, then without the one of the most negative coefficient, until there is none."""
    number = len(rows[0])
    kept = list(range(number))
    while True:
        weighted = [[row[i] / time for i in kept] for row, time in zip(rows, times, strict=True)]
        found = _least_squares(weighted)
        worst = min(range(len(kept)), key=lambda i: found[i])
        if found[worst] >= 0:
            return tuple(found[kept.index(i)] if i in kept else 0.0 for i in range(number))
        del kept[worst]


def _least_squares(rows: Sequence[Sequence[float]]) -> list[float]:
    """Solve the normal equations of rows that should each give 1; a feature that others make up gets 0."""
    n = len(rows[0])
    equations = [
        [*(math.fsum(row[i] * row[j] for row in rows) for j in range(n)), math.fsum(row[i] for row in rows)]
        for i in range(n)
    ]
    order = []
    for column in range(n):
        free = [i for i in range(n) if i not in order]
        pivot = max(free, key=lambda i: abs(equations[i][column]))
        order.append(pivot)
        top = equations[pivot]
        if abs(top[column]) < 1e-12 * max(1.0, math.fsum(row[column] ** 2 for row in rows)):
            top[:] = [float(j == column) for j in range(n)] + [0.0]
            continue
        for i in range(n):
            if i != pivot and equations[i][column]:
                factor = equations[i][column] / top[column]
                equations[i] = [a - factor * b for a, b in zip(equations[i], top, strict=True)]
    return [equations[order[column]][n] / equations[order[column]][column] for column in range(n)]
