"""Kernel tables: errors at points held out of them, and two bounds that no step may break.

- Held out: every table's errors at every fifth point (`simulator.calibration.held_out`), and those that the embedded
  fits carry.
- Decode: the kernel time of one step of Llama-3.1-8B at batch 1 lies above the time to read its weights (without the
  input embedding) and KV once at the data sheet's bandwidth.
- Prefill: a large prompt's floating-point operations over its kernel time lie below the data sheet's peak.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from hardware_profiles import Accelerator, list_accelerators, list_fits, load_accelerator, load_fits
from simulator.build import build
from simulator.calibration.held_out import held_out_errors
from simulator.calibration.load import load_measurements
from simulator.calibration.schema import tp_degrees
from simulator.cost.shape import BatchShape, CostModel
from simulator.model_work import attention_flops_per_token, body_parameters
from simulator.models import ModelSpec, load_model
from simulator.models.weights import kv_bytes_per_token, weight_bytes_by_family
from simulator.resolve import resolve
from simulator.scenario import Scenario
from simulator.validation.cases import Case
from simulator.validation.rows import Row, compared, cost_text, not_judged
from simulator.validation.subjects import accelerator_for, model_for
from workloads import Trace

DATASET = "kernels"

MODEL = "llama-3.1-8b"
"""Model of the two bounds."""

CONTEXT_TOKENS = 1024
"""Tokens that the decoded token of the first bound attends to: a choice."""

PROMPT_TOKENS = 8192
"""Tokens of the prompt of the second bound: large enough that matrix products take most of the time."""

DECODE_METRIC = "decode_step_over_bound"
PREFILL_METRIC = "prefill_flops_over_peak"

_NS = 1e-9


def cases(data: Path, kernel_tables: Path | None) -> list[Case]:
    """Return a case for every table below ``data/layer_profiles`` and ``kernel_tables``, and for every accelerator."""
    root = data / "layer_profiles"
    profiles = [meta.parent for meta in sorted(root.glob("*/**/meta.yaml"))]
    tables = [(profile.relative_to(root).as_posix(), profile) for profile in profiles]
    tables += [(path.stem, path) for path in sorted(kernel_tables.glob("*.parquet"))] if kernel_tables else []
    found = [Case(DATASET, name, partial(held_out, name, path), 10.0) for name, path in tables]
    found += [Case(DATASET, f"fits/{name}", partial(fit_errors, name)) for name in list_fits()]
    found += [Case(DATASET, name, partial(bounds, name, None)) for name in list_accelerators()]
    for profile in profiles:
        relative = profile.relative_to(root)
        if _of_the_model("/".join(relative.parts[1:-1])) and (profile / "tp1").is_dir():
            found.append(Case(DATASET, relative.as_posix(), partial(bounds, relative.parts[0], profile)))
    return found


def held_out(name: str, path: Path) -> list[Row]:
    """Return median and 90th percentile of the errors of one table at points held out of it."""
    table = load_measurements(path)
    made = sorted(
        {
            f"{software} {version}"
            for software, version in zip(table["software"], table["software_version"], strict=True)
        }
    )
    rows = []
    for tp in tp_degrees(table):
        for operator, errors in held_out_errors(table, tp).items():
            if operator.startswith("attention_skew_ignored"):
                continue  # not a table: how far off one would be without the correction
            metric = f"kernel_{operator.replace(' ', '_')}"
            costs = cost_text(
                [f"measured: {', '.join(made)}", f"{errors.points} points held out, absolute errors of interpolation"]
            )
            for which, value in (("median", errors.median), ("p90", errors.p90)):
                rows.append(Row(DATASET, f"{name}/tp{tp}", f"{metric}_{which}", None, None, value, None, costs))
    if not rows:
        reason = "errors at held-out points are worked out for the layers of a model only, and this table has none"
        return [not_judged(DATASET, name, reason)]
    return rows


def fit_errors(name: str) -> list[Row]:
    """Return median and 90th percentile of the errors of an accelerator's fits at points held out of them."""
    rows = []
    for fit in load_fits(name).fits:
        metric = "_".join(("kernel", fit.operator, *(str(value) for _, value in sorted(fit.variant.items()))))
        costs = cost_text([f"fitted: {fit.software}", f"{fit.held_out} points held out of {fit.points + fit.held_out}"])
        for which, value in (("median", fit.median_error), ("p90", fit.p90_error)):
            rows.append(Row(DATASET, f"fits/{name}", f"{metric}_{which}", None, None, value, None, costs))
    return rows


def bounds(name: str, profile: Path | None) -> list[Row]:
    """Return the two bounds of an accelerator, with its default costs or those of a layer profile.

    ``measured`` is the bound (seconds; FLOP/s), ``simulated`` what the costs say.
    """
    model = load_model(MODEL)
    accelerator = accelerator_for(name) if profile is not None else load_accelerator(name)
    dtype = "bf16" if "bf16" in accelerator.peak_flops else "fp16"
    cost, case = _cost(accelerator, dtype, profile), name if profile is None else f"{name}/{MODEL}/measured"
    step_s = cost.step_ns(_decode_shape()) * _NS
    bound_s = decode_bytes(model, dtype) / accelerator.memory_bandwidth
    prompt_s = cost.step_ns(_prefill_shape()) * _NS
    rate = prefill_flops(model) / prompt_s
    text = cost_text([*cost.sources[:1], f"memory {accelerator.memory_bandwidth / 1e12:g} TB/s", dtype])
    return [
        compared(DATASET, case, DECODE_METRIC, bound_s, step_s, text),
        compared(DATASET, case, PREFILL_METRIC, accelerator.peak_flops[dtype], rate, text),
    ]


def _cost(accelerator: Accelerator, dtype: str, profile: Path | None) -> CostModel:
    """Return the cost model of a scenario with one GPU, without the host's overhead: kernel times alone."""
    pool = {
        "accelerator": accelerator.name,
        "dtypes": {"weights": dtype, "activations": dtype, "kv": dtype},
        "engine": {"host_overhead_s": 0.0, "num_kv_blocks": 2 * PROMPT_TOKENS, "async_scheduling": False},
        "cost": "auto" if profile is None else {"kind": "measured", "profile": str(profile)},
    }
    scenario = Scenario.from_mapping({"model": MODEL, "cluster": {"pools": [pool]}})
    one = Trace(arrival_s=np.zeros(1), prompt_tokens=np.ones(1, np.int64), output_tokens=np.ones(1, np.int64))
    return build(resolve(scenario), one).cluster.replicas[0].cost


def decode_bytes(model: ModelSpec, dtype: str) -> int:
    """Return the bytes that one decoded token reads at least: weights but for the input embedding, and its KV."""
    families = weight_bytes_by_family(model, dtype)
    embedding = 0 if model.tied_embeddings else families["embedding"]  # a tied table is read as the LM head
    return sum(families.values()) - embedding + CONTEXT_TOKENS * kv_bytes_per_token(model, dtype)


def prefill_flops(model: ModelSpec) -> int:
    """Return the floating-point operations of the prompt: two a weight and token, and causal attention.

    The LM head counts for the last token only, as engines compute it.
    """
    attention = attention_flops_per_token(model) * model.num_layers * PROMPT_TOKENS * (PROMPT_TOKENS + 1) // 2
    return 2 * body_parameters(model) * PROMPT_TOKENS + attention + 2 * model.vocab_size * model.hidden_size


def _decode_shape() -> BatchShape:
    shape = BatchShape()
    shape.decodes = shape.logit_rows = 1
    shape.decode_kv = shape.decode_window_kv = CONTEXT_TOKENS
    shape.decode_kv_sq = CONTEXT_TOKENS**2
    return shape


def _prefill_shape() -> BatchShape:
    shape = BatchShape()
    shape.chunks = [(PROMPT_TOKENS, 0)]
    shape.prefill_tokens = PROMPT_TOKENS
    shape.logit_rows = 1
    return shape


def _of_the_model(name: str) -> bool:
    try:
        return model_for(name).name == MODEL
    except ValueError:
        return False
