"""Replicas that die and come back, and what is slow meanwhile: timetables worked out by hand. A step takes 10 ms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from policies.routing.least_outstanding import LeastOutstanding
from simulator.engine.recorder import Outcome
from simulator.errors import InputError
from simulator.faults.making import make_faults
from simulator.faults.times import noticed_down_ns, noticed_up_ns, time_to_failure_ns, time_to_repair_ns
from simulator.resolve import resolve
from simulator.scenario import Scenario
from simulator.scenario_faults import MTBF_H, Faults, HealthCheck, RandomKind, ScriptedFault
from tests.engine.support import MS, Request, times_ms
from tests.engine.test_lockstep import JointLinear
from tests.faults.support import AT_ONCE, run

S = 1000 * MS


def dies(at_s: float, which: int = 0, **more: Any) -> dict[str, Any]:
    return {"at_s": at_s, "what": "replica", "which": which, **more}


def immediate(*script: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"faults": {"script": list(script), "health": "immediate", "restart": AT_ONCE, **more}}


PROBED = {"interval_s": 0.1, "timeout_s": 0.02, "failures": 2, "successes": 2}


# ------------------------------------------------------------------------------------------------- what is lost


def test_a_lost_request_begins_anew_elsewhere() -> None:
    # Two tokens at 10 and 20 ms; lost at 25 ms; on replica 1 from then on.
    cluster, sections = run([Request(0, 20, 4)], immediate(dies(0.025)), replicas=2)
    columns = cluster.recorder.columns
    assert times_ms(cluster, "first_token_ns") == [35]
    assert times_ms(cluster, "last_token_ns") == [65]
    assert columns["attempts"].tolist() == [2]
    section = sections["faults"]
    assert section["requests_lost"] == 1
    assert section["lost_requests"] == {"retried": 1, "recomputed": 0, "failed": 0}
    assert (section["kv_tokens_lost"], section["output_tokens_lost"]) == (21, 2)
    assert section["events"][0]["component"] == "replica0"


def test_a_lost_request_is_recomputed_elsewhere() -> None:
    cluster, sections = run([Request(0, 20, 4)], immediate(dies(0.025), on_loss="recompute"), replicas=2)
    assert times_ms(cluster, "first_token_ns") == [10]
    assert times_ms(cluster, "last_token_ns") == [45]
    assert cluster.recorder.columns["attempts"].tolist() == [1]
    assert sections["faults"]["lost_requests"]["recomputed"] == 1


def test_a_lost_request_fails() -> None:
    cluster, _ = run([Request(0, 20, 4)], immediate(dies(0.025), on_loss="fail"), replicas=2)
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FAILED]
    assert cluster.recorder.columns["ended_ns"].tolist() == [25 * MS]
    assert cluster.recorder.reasons == {0: "its replica was lost"}


def test_a_request_that_is_lost_too_often_fails() -> None:
    script = [dies(0.005 + 0.01 * i, 0, for_s=0.001) for i in range(4)]
    cluster, sections = run([Request(0, 20, 9)], immediate(*script, max_retries=2))
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FAILED]
    assert cluster.recorder.columns["attempts"].tolist() == [3]
    assert cluster.recorder.reasons == {0: "its replica was lost, 3 times"}
    assert sections["faults"]["not_reached"] == 1
    assert sections["faults"]["faults"] == 3


def test_a_client_tries_again_what_the_server_failed() -> None:
    retries = {"max": 1, "base_s": 0.05, "backoff": "fixed", "jitter": "none"}
    parts = immediate(dies(0.025), on_loss="fail") | {"clients": {"retries": retries}}
    cluster, sections = run([Request(0, 20, 4)], parts, replicas=2)
    assert times_ms(cluster, "first_token_ns") == [85]
    assert sections["clients"]["failed_attempts"]["failed"] == 1
    assert sections["faults"]["lost_requests"]["failed"] == 1


# --------------------------------------------------------------------------------------------------- who notices


def test_when_probes_notice() -> None:
    health = HealthCheck(interval_s=10, timeout_s=1, failures=3, successes=2)
    # Probes at 10, 20 and 30 s; the last times out at 31 s. One at the instant of the death finds it dead.
    assert noticed_down_ns(health, 4 * S) == noticed_down_ns(health, 10 * S) == 31 * S
    assert noticed_down_ns(health, 10 * S + 1) == 41 * S
    assert noticed_up_ns(health, 40 * S) == 50 * S
    assert noticed_up_ns(health, 40 * S + 1) == 60 * S
    assert noticed_down_ns(HealthCheck(failures=1), 0) == S


def test_until_it_is_noticed_requests_go_to_the_dead_replica() -> None:
    # Replica 0 dies at 25 ms. Probes at 100 and 200 ms fail, the second at 220 ms. What had been there and what was
    # sent there since (the third, at 50 ms) is begun anew on replica 1 then.
    faults = {"script": [dies(0.025)], "health": PROBED, "restart": AT_ONCE}
    requests = [Request(0, 20, 4), Request(30 * MS, 20, 2), Request(50 * MS, 20, 2), Request(230 * MS, 20, 1)]
    cluster, sections = run(requests, {"faults": faults}, replicas=2)
    assert times_ms(cluster, "first_token_ns") == [230, 40, 230, 240]
    assert cluster.recorder.columns["attempts"].tolist() == [2, 1, 2, 1]
    section = sections["faults"]
    assert section["mean_detection_s"] == pytest.approx(0.195)
    assert section["requests_sent_in_vain"] == section["outage_list"][0]["requests_sent_in_vain"] == 1
    assert section["requests_lost"] == 1


def test_a_dead_replica_looks_busy_to_a_router() -> None:
    # Its requests stay outstanding until somebody notices, so least-outstanding sends others elsewhere.
    faults = {"script": [dies(0.005)], "health": PROBED, "restart": AT_ONCE}
    requests = [Request(i * MS, 20, 30) for i in range(8)]
    cluster, _ = run(requests, {"faults": faults}, replicas=2, router=LeastOutstanding())
    assert sorted(cluster.recorder.columns["attempts"].tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_replica_serves_again_when_probes_find_it() -> None:
    # Dead from 25 ms, marked down at 220 ms, repaired at 325 ms, up 30 ms later (355 ms); probes at 400 and 500 ms.
    restart = {"weights": "none", "init_s": 0.03}
    faults = {"script": [dies(0.025, for_s=0.3)], "health": PROBED, "restart": restart}
    requests = [Request(0, 20, 1), Request(250 * MS, 20, 1), Request(450 * MS, 20, 1), Request(500 * MS, 20, 1)]
    requests.append(Request(1000 * MS, 20, 1))
    cluster, sections = run(requests, {"faults": faults})
    # Nobody else is there: from 250 ms on they wait until 500 ms.
    assert times_ms(cluster, "first_token_ns") == [10, 510, 510, 510, 1010]
    (outage,) = sections["faults"]["outage_list"]
    assert [outage[key] for key in ("died_s", "noticed_s", "ready_s", "serving_s")] == [0.025, 0.22, 0.355, 0.5]
    assert outage["downtime_s"] == 0.475
    assert sections["faults"]["availability"] == pytest.approx(1 - 0.475 / 1.01)


def test_an_outage_that_nobody_noticed() -> None:
    # Dead from 25 to 65 ms, between two probes: connections break when it is back, and all goes on at once.
    faults = {"script": [dies(0.025, for_s=0.04)], "health": PROBED, "restart": AT_ONCE}
    cluster, sections = run([Request(0, 20, 4), Request(40 * MS, 20, 2)], {"faults": faults})
    assert times_ms(cluster, "first_token_ns") == [75, 75]
    assert sections["faults"]["outage_list"][0]["noticed_s"] is None
    assert sections["faults"]["outage_list"][0]["requests_sent_in_vain"] == 1


def test_a_client_gives_up_before_anybody_noticed() -> None:
    parts = {
        "faults": {"script": [dies(0.025)], "health": PROBED, "restart": AT_ONCE},
        "clients": {"timeout_s": 0.05, "retries": {"max": 1, "base_s": 0.0}},
    }
    cluster, sections = run([Request(0, 20, 4)], parts, replicas=2)
    # Not on any living replica, it has the request back at once (50 ms) and sends it again, to replica 1.
    assert times_ms(cluster, "first_token_ns") == [60 + 1e-6]
    assert sections["faults"]["lost_requests"] == {"retried": 0, "recomputed": 0, "failed": 0}


def test_a_client_gives_up_in_the_very_step_that_is_lost() -> None:
    # It gives up at 22 ms, in the step that the replica's death cuts at 25 ms: it has its request back then, and sends
    # it to the other one. What is noticed at 220 ms is of nobody any more.
    parts = {
        "faults": {"script": [dies(0.025)], "health": PROBED, "restart": AT_ONCE, "max_retries": 0},
        "clients": {"timeout_s": 0.022, "retries": {"max": 1, "base_s": 0.0}},
    }
    cluster, _ = run([Request(0, 20, 2)], parts, replicas=2)
    assert cluster.recorder.columns["outcome"].tolist() == [Outcome.FINISHED]
    cluster, sections = run([Request(0, 20, 4), Request(230 * MS, 20, 1)], parts, replicas=2)
    columns = cluster.recorder.columns
    assert columns["outcome"].tolist() == [Outcome.TIMED_OUT, Outcome.FINISHED]
    assert columns["attempts"].tolist() == [2, 1]
    assert columns["ended_ns"][0] == pytest.approx(55 * MS, abs=10)
    assert sections["faults"]["lost_requests"] == {"retried": 0, "recomputed": 0, "failed": 0}


def test_two_causes_keep_a_replica_dead_until_both_are_gone() -> None:
    script = [dies(0.025, for_s=0.1), dies(0.05, for_s=0.2)]
    cluster, sections = run([Request(0, 20, 4)], immediate(*script))
    assert times_ms(cluster, "first_token_ns") == [260]
    assert sections["faults"]["outages"] == 1
    assert sections["faults"]["faults"] == 2


def test_a_replica_that_dies_while_it_starts_begins_again() -> None:
    # Repaired at 50 ms, it would be up at 150 ms; it dies at 100 ms until 110 ms, and is up at 210 ms.
    script = [dies(0.025, until_s=0.05), dies(0.1, until_s=0.11)]
    cluster, sections = run([Request(0, 20, 4)], immediate(*script, restart={"weights": "none", "init_s": 0.1}))
    assert times_ms(cluster, "first_token_ns") == [220]
    assert sections["faults"]["outages"] == 1


# ------------------------------------------------------------------------------------------------------ what is slow


def test_a_straggler_takes_longer_from_its_next_step_on() -> None:
    straggler = {"at_s": 0.015, "what": "straggler", "which": 0, "factor": 2, "for_s": 0.03}
    cluster, sections = run([Request(0, 20, 6)], immediate(straggler))
    # Steps end at 10, 20, then 40, 60 (the fault ends at 45), 70, 80 ms.
    assert times_ms(cluster, "last_token_ns") == [80]
    assert sections["faults"]["availability"] == 1
    assert sections["faults"]["events"][0]["repaired_s"] == 0.045


def test_the_slowest_part_of_a_replica_decides() -> None:
    script = [
        {"at_s": 0, "what": "straggler", "which": 0, "factor": 3, "for_s": 0.045},
        {"at_s": 0, "what": "straggler", "which": 0, "factor": 2},
    ]
    cluster, _ = run([Request(0, 20, 4)], immediate(*script))
    assert times_ms(cluster, "last_token_ns") == [30 + 30 + 20 + 20]


def test_a_slow_start() -> None:
    # Restarts at 25 ms, is up at 45 ms; its steps take twice as long for 30 ms.
    script = {"at_s": 0.025, "what": "slow-start", "which": 0, "factor": 2, "for_s": 0.03}
    parts = immediate(script, on_loss="recompute", restart={"weights": "none", "init_s": 0.02})
    cluster, _ = run([Request(0, 20, 5)], parts)
    assert times_ms(cluster, "last_token_ns") == [45 + 20 + 20 + 10]


def test_every_restart_may_be_slow_at_first() -> None:
    restart = {"weights": "none", "init_s": 0.02, "slow_factor": 3, "slow_s": 0.03}
    parts = immediate(dies(0.025, for_s=0.01), on_loss="recompute", restart=restart)
    cluster, _ = run([Request(0, 20, 4)], parts)
    assert times_ms(cluster, "last_token_ns") == [55 + 30 + 10]


def test_ranks_of_a_replica_die_together() -> None:
    requests, parts = [Request(i * MS, 20, 6) for i in range(8)], immediate(dies(0.025, 0, for_s=0.1))
    cluster, sections = run(requests, parts, replicas=2, ranks=2, cost=JointLinear(10 * MS))
    assert (cluster.recorder.columns["outcome"] == Outcome.FINISHED).all()
    assert sections["faults"]["availability_by_replica"][1] == 1
    assert len(sections["faults"]["availability_by_replica"]) == 2
    assert sections["faults"]["requests_lost"] == 4


# ---------------------------------------------------------------------------------------------------------- at random


def test_times_to_failure_have_the_mean_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    for shape in (0.7, 1.0, 3.0):
        part = RandomKind(mtbf_h=2.0, mttr_s=60.0, shape=shape)
        drawn = np.array([time_to_failure_ns("gpu", part, rng) for _ in range(20_000)]) / S
        # Standard deviation of a Weibull variable over its mean.
        spread = math.sqrt(math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2 - 1)
        assert drawn.mean() == pytest.approx(7200, rel=4 * spread / math.sqrt(20_000))
        assert drawn.std() / drawn.mean() == pytest.approx(spread, rel=0.1)
    repairs = np.array([time_to_repair_ns(part, rng) for _ in range(20_000)]) / S
    assert repairs.mean() == pytest.approx(60, rel=4 / math.sqrt(20_000))
    assert time_to_repair_ns(RandomKind(mttr_s=60.0, repair="fixed"), rng) == 60 * S


def test_published_rates() -> None:
    # 268 interruptions by GPUs in 54 days of 16,384 of them: 5 a day.
    assert 24 * 16_384 / MTBF_H["gpu"] == pytest.approx(268 / 54)


def test_random_faults_come_and_go_and_end_with_the_requests() -> None:
    random = {"process": {"mtbf_h": 0.2 / 3600, "mttr_s": 0.05}}
    parts = {"faults": {"random": random, "health": "immediate", "restart": AT_ONCE, "max_retries": 1000}}
    requests = [Request(i * 20 * MS, 20, 8) for i in range(300)]
    cluster, sections = run(requests, parts, replicas=4)
    assert (cluster.recorder.columns["outcome"] == Outcome.FINISHED).all()
    section = sections["faults"]
    # Each replica is up 0.2 s of 0.25 s.
    assert section["availability"] == pytest.approx(0.8, abs=0.1)
    assert section["by_kind"]["process"] == section["faults"] > 50
    _, other = run(requests, parts, replicas=4)
    assert other["faults"] == section
    _, other = run(requests, {**parts, "seed": 1}, replicas=4)
    assert other["faults"]["events"] != section["events"]
    # A component draws from its own stream: a cluster with more replicas has the same failures of the first ones.
    _, more = run(requests, parts, replicas=5)
    first = [(each["at_s"], each["component"]) for each in section["events"] if each["component"] == "replica0"]
    same = [(each["at_s"], each["component"]) for each in more["faults"]["events"] if each["component"] == "replica0"]
    assert first[: min(len(first), len(same))] == same[: min(len(first), len(same))] != []


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"what": "replica", "which": "node0"}, "'which' of a replica is its number, from 0, got 'node0'"),
        ({"what": "gpu", "which": 3}, "'which' of a gpu is its name, such as 'node0/gpu3', got 3"),
        ({"what": "straggler", "which": 0}, "a straggler needs 'factor'"),
        ({"what": "straggler", "which": 0, "factor": 0.5}, "is how many times as long steps take, got 0.5"),
        ({"what": "link", "which": "a", "factor": 2}, "is the share of bandwidth left, 0 to 1, got 2"),
        ({"what": "node", "which": 0, "factor": 2}, "'factor' is for links and for what is slow, not for a node"),
        ({"what": "nic", "which": "a", "on_s": 1}, "what flaps needs both 'off_s' and 'on_s'"),
        ({"what": "node", "which": 0, "on_s": 1, "off_s": 1}, "only a link or a nic flaps"),
        ({"what": "node", "which": 0, "for_s": 1, "until_s": 9}, "give 'for_s' or 'until_s', not both"),
        ({"what": "node", "which": 0, "until_s": 1}, "'until_s' must be above 'at_s', got 1 and 2"),
    ],
)
def test_what_a_script_can_not_say(fault: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScriptedFault.model_validate({"at_s": 2.0, **fault})


def test_short_forms_and_what_is_needed() -> None:
    assert Faults.model_validate([dies(1.0)]) == Faults.model_validate({"script": [dies(1.0)]})
    assert Faults.model_validate({"restart": 7}).restart.init_s == 7.0
    with pytest.raises(ValueError, match="'link' needs 'mtbf_h'"):
        Faults.model_validate({"random": {"link": {"mttr_s": 1.0}}})


def test_replicas_that_fail_before_they_have_started_are_refused() -> None:
    faults = {"random": {"gpu": {"mtbf_h": 8 / 3600, "mttr_s": 1.0}}, "restart": {"init_s": 21.0, "weights": "none"}}
    pool = {"parallel": {"tp": 4}, "cost": {"kind": "constant", "step_s": 0.01}}
    scenario = Scenario.from_mapping({"faults": faults, "cluster": {"pools": [pool]}})
    with pytest.raises(InputError, match=r"random\.gpu\.mtbf_h: a replica of pool 'default' would fail every 2 s"):
        make_faults(resolve(scenario))
    make_faults(resolve(scenario.updated({"faults.restart.init_s": 19.0})))
