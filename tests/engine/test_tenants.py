"""Choice among tenants: service by hand and against the bound of the paper; fast-forward equals stepwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import registry
from policies.batching.vllm_v1 import VllmV1
from policies.queueing.fcfs import Fcfs
from policies.queueing.vtc import Vtc
from simulator.engine.links import Link
from tests.engine.support import MS, LinearCost, Request, fingerprint, simulate, times_ms
from tests.engine.test_fast_forward import COST, workloads


def test_the_tenant_served_least_goes_next() -> None:
    """One place, steps of 10 ms, a prompt token counts 1 and an output token 2.

    a's first two requests take 20 ms each. When b comes, at 25 ms, a was charged two prompts and two tokens:
    8 + 8 + 2 x 2 = 20, to which b is lifted. At 40 ms a stands at 24, so b goes, to 26 at 50 ms. a goes, to 36
    at 70 ms, and then b twice.
    """
    requests = [Request(0, 8, 2, tenant="a") for _ in range(3)] + [Request(25 * MS, 4, 1, tenant="b") for _ in range(3)]
    cluster = simulate(requests, queueing=Vtc, seqs=1, cost=LinearCost(10 * MS))
    assert times_ms(cluster, "scheduled_ns") == [0, 20, 50, 40, 70, 80]


class Watched(Vtc):
    """Notes the service of each tenant whenever a choice is made while both wait."""

    seen: list[tuple[float, float]]

    def choose(self, tenants: Any) -> str:
        if len(tenants.waiting) == 2:
            self.seen.append((self.counter("a", tenants), self.counter("b", tenants)))
        return super().choose(tenants)


def backlog(seed: int) -> list[Request]:
    """Two tenants who wait all the time: a sends long prompts and short answers, b the other way round."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(120):
        requests.append(Request(0, int(rng.integers(60, 121)), int(rng.integers(1, 20)), tenant="a"))
        requests.append(Request(0, int(rng.integers(1, 30)), int(rng.integers(20, 81)), tenant="b"))
    return requests


@pytest.mark.parametrize("seed", range(4))
def test_service_of_backlogged_tenants_differs_by_no_more_than_the_bound_of_the_paper(seed: int) -> None:
    """2 max(w_p L_input, w_q M), M the output tokens that requests running at once can have: 4 places of 80."""
    seen: list[tuple[float, float]] = []

    def queueing() -> Vtc:
        policy = Watched()
        policy.seen = seen
        return policy

    cluster = simulate(backlog(seed), queueing=queueing, seqs=4, cost=LinearCost(10 * MS), fast_forward=False)
    assert not cluster.recorder.columns["preemptions"].any()  # which the paper's engine doesn't know
    bound = 2 * max(1.0 * 120, 2.0 * 4 * 80)
    service = np.array(seen)
    assert len(service) > 100 and (service[-1] > 2 * bound).all()  # long enough for the bound to be worth something
    differences = service[:, 0] - service[:, 1]
    assert differences.max() - differences.min() <= bound
    # The lemma behind it: counters of those who wait are never further apart than half of that.
    assert np.abs(differences).max() <= bound / 2


def served(cluster: Any, tenants: list[str]) -> dict[str, float]:
    """Return the weighted tokens of each tenant's requests."""
    columns = cluster.recorder.columns
    found = dict.fromkeys(sorted(set(tenants)), 0.0)
    for row, tenant in enumerate(tenants):
        if columns["scheduled_ns"][row] >= 0:
            found[tenant] += cluster.workload.prompt_tokens[row] + 2.0 * columns["output_tokens"][row]
    return found


def test_equal_tenants_get_equal_service_where_first_come_first_served_gives_the_flood_more() -> None:
    rng = np.random.default_rng(5)
    flood = [Request(int(t), 60, 30, tenant="flood") for t in np.sort(rng.integers(0, 4000, 900)) * MS]
    modest = [Request(int(t), 60, 30, tenant="modest") for t in np.sort(rng.integers(0, 4000, 200)) * MS]
    requests = flood + modest
    common: dict[str, Any] = {"seqs": 4, "cost": LinearCost(5 * MS), "until": 4000 * MS}
    names = [request.tenant for request in requests]
    fair = served(simulate(requests, queueing=Vtc, **common), names)
    plain = served(simulate(requests, queueing=Fcfs, **common), names)
    assert abs(fair["flood"] - fair["modest"]) <= 2 * 4 * 120
    assert plain["flood"] > 3 * plain["modest"]


def test_a_tenant_of_weight_3_gets_three_times_the_service() -> None:
    requests = [Request(0, 30, 20, tenant=name) for name in ("gold", "other") * 200]
    queueing = registry.make("queueing", "vtc", {"tenant_weights": "gold = 3"})
    cluster = simulate(requests, queueing=lambda: queueing, seqs=4, cost=LinearCost(5 * MS), until=6000 * MS)
    fair = served(cluster, [request.tenant for request in requests])
    assert fair["gold"] / fair["other"] == pytest.approx(3, rel=0.05)


def test_idle_tenants_save_up_nothing() -> None:
    """Alone for 100 requests, a is not passed over when b comes: they take turns."""
    requests = [Request(0, 10, 1, tenant="a") for _ in range(140)]
    requests += [Request(1000 * MS + 5 * MS, 10, 1, tenant="b") for _ in range(20)]
    cluster = simulate(requests, queueing=Vtc, seqs=1, cost=LinearCost(10 * MS))
    begun = np.argsort(cluster.recorder.columns["scheduled_ns"])
    after = [requests[row].tenant for row in begun if cluster.recorder.columns["scheduled_ns"][row] > 1005 * MS][:40]
    assert all(one != other for one, other in pairwise(after))


@pytest.mark.parametrize("policy", ["vllm-v1", "sarathi", "vllm", "orca", "sglang", "fastgen"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=workloads(), budget=st.sampled_from([16, 512]), overlap=st.booleans(), number=st.sampled_from([1, 2, 4]))
def test_fast_forward_equals_stepwise(
    policy: str, options: dict[str, Any], budget: int, overlap: bool, number: int
) -> None:
    rng = np.random.default_rng(len(options["requests"]))
    options["requests"] = [replace(r, tenant=f"t{rng.integers(number)}") for r in options["requests"]]
    common: dict[str, Any] = {
        "policy": registry.resolve("batching", policy),
        "queueing": lambda: registry.make("queueing", "vtc", {"tenant_weights": "t1=1.7"}),
        "cost": COST,
        "budget": budget,
        "async_scheduling": overlap,
        "link": Link("test", 1e9, 1e-5),
        **options,
    }
    assert fingerprint(simulate(**common)) == fingerprint(simulate(**common, fast_forward=False))


def test_tokens_of_a_tenant_are_counted_in_the_middle_of_a_run() -> None:
    """What an arrival is lifted to is what was served until then, however many steps are taken at once."""
    lifts = []

    class Noted(Vtc):
        def came(self, tenant: str, tenants: Any) -> None:
            super().came(tenant, tenants)
            lifts.append((tenant, self.counter(tenant, tenants), tenants.output_tokens("a")))

    requests = [Request(0, 10, 100, tenant="a"), Request(1, 10, 5, tenant="a"), Request(505 * MS, 10, 5, tenant="b")]
    for fast in (True, False):
        lifts.clear()
        simulate(requests, queueing=Noted, policy=VllmV1, seqs=1, cost=LinearCost(10 * MS), fast_forward=fast)
        assert lifts == [("a", 0.0, 0), ("a", 10.0, 0), ("b", 10.0 + 2 * 50, 50)]
