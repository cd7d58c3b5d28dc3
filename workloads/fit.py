"""Fitting: length distributions and burstiness of a trace, kept in a small YAML file that ``generate`` reads.

Lengths are fitted by maximum likelihood (lognormal, Gamma, Weibull) and compared by their Kolmogorov-Smirnov distance
to the trace, at the half-integers between lengths. The nearest family is chosen; where none comes within
:data:`KS_LIMIT`, the trace's own quantiles are used in its place, and the file says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.generators.lengths import Lengths, lengths
from workloads.stats import interarrival_cv
from workloads.trace import Floats, Ints, Trace, TraceError
from workloads.writers import whole_file

SCHEMA = "workload-fit/1"
KS_LIMIT = 0.1
"""Largest KS distance at which a fitted family stands for the trace (choice)."""
_PROBABILITIES = (*(round(0.01 * i, 2) for i in range(100)), 0.995, 0.998, 0.999, 0.9995, 1.0)


def fit_trace(trace: Trace) -> dict[str, Any]:
    """Fit the lengths and gaps of a trace; return plain data as the YAML file holds it.

    Raises
    ------
    TraceError
        If the trace has fewer than 10 requests.
    """
    if len(trace) < 10:
        raise TraceError(f"{trace.source}: {len(trace)} requests are too few to fit; at least 10 are needed")
    return {
        "schema": SCHEMA,
        "source": trace.source,
        "sha256": trace.sha256,
        "requests": len(trace),
        "prompt_tokens": fit_lengths(trace.prompt_tokens),
        "output_tokens": fit_lengths(trace.output_tokens),
        "arrivals": fit_gaps(np.diff(trace.arrival_s)),
        "notes": list(trace.notes),
    }


def fit_lengths(tokens: Ints) -> dict[str, Any]:
    """Fit each family to lengths; return the chosen one, and all with their KS distance."""
    low, high = int(tokens.min()), int(tokens.max())
    quantiles = [round(q, 3) for q in np.quantile(tokens, _PROBABILITIES).tolist()]
    empirical: dict[str, Any] = {"kind": "empirical", "probabilities": list(_PROBABILITIES), "quantiles": quantiles}
    if low == high:
        return {"chosen": {"kind": "constant", "value": low}, "why": "all lengths are equal", "candidates": []}
    x = tokens.astype(np.float64)
    candidates = []
    for family in (_lognormal, _gamma, _weibull):
        spec, cdf = family(x)
        candidates.append({**spec, "min": low, "max": high, "ks": round(_ks(tokens, cdf), 6)})
    candidates.sort(key=lambda candidate: candidate["ks"])
    best = {name: value for name, value in candidates[0].items() if name != "ks"}
    if candidates[0]["ks"] <= KS_LIMIT:
        chosen, why = best, f"smallest KS distance, {candidates[0]['ks']:.4f}"
    else:
        chosen = {name: list(value) if isinstance(value, list) else value for name, value in empirical.items()}
        why = f"no family comes within a KS distance of {KS_LIMIT:g} (best: {best['kind']}, {candidates[0]['ks']:.4f})"
    return {"chosen": chosen, "why": why, "candidates": candidates, "empirical": empirical}


def fit_gaps(gaps: Floats) -> dict[str, Any]:
    """Fit the gaps between arrivals: rate, coefficient of variation, and shapes of Gamma and Weibull.

    ``burstiness`` is 1 / CV², the Gamma shape of that CV; the maximum-likelihood shapes are of the gaps above zero.
    """
    result: dict[str, Any] = {"rate": None, "cv": None, "burstiness": None, "gamma_shape": None, "weibull_shape": None}
    if gaps.sum() > 0:
        result["rate"] = float(len(gaps) / gaps.sum())
        cv = interarrival_cv(np.concatenate(([0.0], np.cumsum(gaps))))
        result["cv"] = cv if math.isfinite(cv) else None
        result["burstiness"] = float(1 / cv**2) if cv > 1e-3 else None
    positive = gaps[gaps > 0]
    if len(positive) > 2 and positive.std() > 1e-9 * positive.mean():
        result["gamma_shape"] = _gamma_shape(positive)
        result["weibull_shape"] = _weibull_shape(positive)
        result["zero_gaps"] = int(len(gaps) - len(positive))
    return result


def write_fit(fit: dict[str, Any], path: str | Path) -> None:
    """Write a fit as YAML, whole or not at all."""
    import yaml

    with whole_file(path) as temporary:
        temporary.write_text(
            yaml.safe_dump(fit, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110),
            encoding="utf-8",
        )


def read_fit(path: str | Path) -> dict[str, Any]:
    """Read a fit; return ``prompt`` and ``output`` as distributions, ``rate``, ``burstiness`` and ``weibull_shape``.

    Raises
    ------
    TraceError
        If the file isn't one that :func:`write_fit` wrote.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise TraceError(f"{path}: can't be read ({getattr(e, 'strerror', None) or e})") from None
    except yaml.YAMLError as e:
        raise TraceError(f"{path}: is no YAML ({str(e).splitlines()[0]})") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise TraceError(f"{path}: is no fit (key 'schema' must be {SCHEMA!r}); make one with 'simulate trace fit'")
    try:
        arrivals = data["arrivals"]
        return {
            "prompt": _chosen(path, data, "prompt_tokens"),
            "output": _chosen(path, data, "output_tokens"),
            "rate": arrivals["rate"],
            "burstiness": arrivals["burstiness"],
            "weibull_shape": arrivals["weibull_shape"],
        }
    except (KeyError, TypeError) as e:
        raise TraceError(f"{path}: key {e} is missing; make the file anew with 'simulate trace fit'") from None


def _chosen(path: str | Path, data: dict[str, Any], name: str) -> Lengths:
    try:
        return lengths(data[name]["chosen"])
    except TraceError as e:
        raise TraceError(f"{path}: {name}: {e}") from None


_Cdf = Callable[[Floats], npt.NDArray[np.float64]]


def _ks(tokens: Ints, cdf: _Cdf) -> float:
    """Return the largest distance between the shares of lengths up to L and a continuous distribution at L + 1/2."""
    values, counts = np.unique(tokens, return_counts=True)
    points: Floats = values.astype(np.float64)
    after = np.cumsum(counts) / len(tokens)
    before = after - counts / len(tokens)
    return float(max(np.abs(cdf(points + 0.5) - after).max(), np.abs(cdf(points - 0.5) - before).max()))


def _lognormal(x: Floats) -> tuple[dict[str, Any], _Cdf]:
    from scipy.stats import norm

    logs = np.log(x)
    mu, sigma = float(logs.mean()), float(logs.std())
    return {"kind": "lognormal", "median": math.exp(mu), "sigma": sigma}, lambda v: norm.cdf((np.log(v) - mu) / sigma)


def _gamma(x: Floats) -> tuple[dict[str, Any], _Cdf]:
    from scipy.stats import gamma

    shape, mean = _gamma_shape(x), float(x.mean())
    return {"kind": "gamma", "mean": mean, "shape": shape}, lambda v: gamma.cdf(v, shape, scale=mean / shape)


def _weibull(x: Floats) -> tuple[dict[str, Any], _Cdf]:
    from scipy.stats import weibull_min

    shape = _weibull_shape(x)
    scale = float(x.max() * np.mean((x / x.max()) ** shape) ** (1 / shape))
    return {"kind": "weibull", "scale": scale, "shape": shape}, lambda v: weibull_min.cdf(v, shape, scale=scale)


def _gamma_shape(x: Floats) -> float:
    """Return the maximum-likelihood shape: log k - digamma(k) = log mean(x) - mean(log x)."""
    from scipy.optimize import brentq
    from scipy.special import digamma

    mean = float(x.mean())
    target = math.log(mean) - float(np.log(x).mean())
    if target < 1e-6:  # nearly equal values, whose logarithms cancel: log k - digamma(k) is 1 / 2k to 1 part in 10^6
        apart = x / mean - 1
        return 0.5 / float((apart - np.log1p(apart)).mean())
    return float(brentq(lambda k: math.log(k) - float(digamma(k)) - target, 1e-4, 1e6))


def _weibull_shape(x: Floats) -> float:
    """Return the maximum-likelihood shape: sum(x^k log x) / sum(x^k) - 1/k = mean(log x)."""
    from scipy.optimize import brentq

    logs = np.log(x / x.max())
    mean = float(logs.mean())

    def slope(k: float) -> float:
        weight = np.exp(k * logs)
        return float((weight * logs).sum() / weight.sum() - 1 / k - mean)

    return float(brentq(slope, 1e-3, 1e12, xtol=1e-10))  # a deviation of 1e-9 of the mean has a shape near 1e9
