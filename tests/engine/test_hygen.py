"""HyGen in the engine: fast-forward equals stepwise, identities of the answer stay hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from simulator.engine.sequence import Sequence
from simulator.errors import InputError
from tests.engine.support import fingerprint, simulate
from tests.engine.test_fast_forward import COST, workloads


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=workloads(),
    step_budget_s=st.sampled_from([0.0, 0.004, 0.006, 0.02, 1.0]),
    budget=st.sampled_from([16, 100, 512]),
    overlap=st.booleans(),
)
def test_fast_forward_equals_stepwise(
    options: dict[str, Any], step_budget_s: float, budget: int, overlap: bool
) -> None:
    options["requests"] = [replace(r, priority=r.priority % 2) for r in options["requests"]]
    common: dict[str, Any] = {
        "policy": lambda: registry.make("batching", "hygen", {"step_budget_s": step_budget_s}),
        "queueing": lambda: registry.make("queueing", "hygen"),
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


@pytest.mark.parametrize(("prompt", "seen"), [(31, 1), (32, 2), (100, 4)])
def test_policies_see_identities_of_the_prompt_alone(prompt: int, seen: int) -> None:
    sequence = Sequence(0, 0, prompt, 40, hashes=[1, 2, 3, 4])
    sequence.hash_tokens = 16
    assert len(sequence.block_hashes) == seen


def test_an_engine_with_a_kv_budget_is_not_profiled() -> None:
    from simulator.runner import run
    from workloads import generate

    length = "lognormal:median=20,sigma=0.1,max=40"
    trace = generate("poisson", rate=1, requests=3, prompt=length, output=length, seed=1)
    with pytest.raises(InputError, match=r"cluster\.pools\.0\.kv_budget: batching policy 'hygen'"):
        pool = {"kv_budget": "h2o", "engine": {"prefix_caching": False}}
        run({"preset": "hygen", "cluster": {"pools": [pool]}}, trace=trace)
