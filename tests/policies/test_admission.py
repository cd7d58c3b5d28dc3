"""Admission: what each rule decides, on cases worked out by hand."""

import numpy as np
import pytest

from policies.admission.early_rejection import EarlyRejection
from policies.admission.queue_limit import QueueLimit
from policies.admission.slo_aware import SloAware
from policies.admission.token_bucket import TokenBucket
from policies.testing import FakeAdmission, FakeArrival


def cluster(outstanding=(0, 0), **state):
    return FakeAdmission(np.array(outstanding, np.int64), np.zeros(len(outstanding), np.int64), **state)


def test_a_queue_limit_holds_where_every_replica_is_full():
    policy = QueueLimit(per_replica=3)
    assert policy.admit(FakeArrival(), cluster([3, 2])) == ""
    assert policy.admit(FakeArrival(), cluster([3, 4])) == "every replica has 3 requests outstanding"
    policy = QueueLimit(per_replica=0, in_all=5)
    assert policy.admit(FakeArrival(), cluster([4, 0])) == ""
    assert policy.admit(FakeArrival(), cluster([4, 1])) == "5 requests are outstanding"


def test_a_bucket_lets_a_burst_in_and_then_its_rate():
    policy = TokenBucket(rate=2.0, burst=3.0)
    said = [not policy.admit(FakeArrival(), cluster(now_s=at)) for at in (0, 0, 0, 0, 0.4, 0.5, 0.9, 1.0, 9, 9, 9, 9)]
    assert said == [True, True, True, False, False, True, False, True, True, True, True, False]


def test_a_bucket_of_tokens_for_each_tenant():
    policy = TokenBucket(rate=100.0, burst=150.0, unit="tokens", per="tenant")

    def ask(tenant, prompt, at, output=float("nan")):
        arrival = FakeArrival(prompt_tokens=prompt, tenant=tenant, predicted_output_tokens=output)
        return policy.admit(arrival, cluster(now_s=at))

    assert ask("a", 100, 0) == ""
    assert ask("a", 51, 0) == "beyond the rate of its tenant: 100 tokens a second"
    assert ask("b", 100, 0, 50.0) == ""
    assert ask("b", 1, 0) != ""
    assert ask("a", 100, 0.5) == ""
    # More than a bucket holds: when it is full.
    assert ask("a", 1000, 1.9) != ""
    assert ask("a", 1000, 2.0) == ""
    assert ask("a", 1, 2.0) != ""


def test_the_objective_against_what_waits_over_the_best_rate_measured():
    policy = SloAware(ttft_s=2.0, window_s=10.0)
    # Nothing is known for 10 s.
    assert policy.admit(FakeArrival(prompt_tokens=100), cluster(now_s=0, waiting_tokens=10**6)) == ""
    assert policy.admit(FakeArrival(prompt_tokens=100), cluster(now_s=9.9, waiting_tokens=10**6)) == ""
    # 5,000 tokens in 10 s: 500 a second, so 1,000 may wait.
    assert (
        policy.admit(FakeArrival(prompt_tokens=100), cluster(now_s=10, started_tokens=5000, waiting_tokens=900)) == ""
    )
    said = policy.admit(FakeArrival(prompt_tokens=101), cluster(now_s=11, started_tokens=5000, waiting_tokens=900))
    assert said == "its first token would come later than 2 s"
    # A quiet time doesn't bring the rate down.
    assert (
        policy.admit(FakeArrival(prompt_tokens=100), cluster(now_s=99, started_tokens=5000, waiting_tokens=900)) == ""
    )
    assert SloAware(ttft_s=2.0, margin=0.5).margin == 0.5


@pytest.mark.parametrize(("predict", "let_in"), [(True, True), (False, False)])
def test_early_rejection_looks_at_the_end_of_the_prefill(predict, let_in):
    policy = EarlyRejection(max_decoding=2, decode_s=4.0, predict=predict)
    # 100 tokens a second; the request's 200 take 2 s. Of four that decode (the most there may be), one began before
    # 20 + 2 - 4 s and is done by then.
    for at in (0, 10):
        policy.admit(FakeArrival(), cluster(now_s=at, started_tokens=100 * at))
    state = {"now_s": 20, "started_tokens": 2000, "first_tokens_s": (17.9, 18, 18.5, 19)}
    assert (policy.admit(FakeArrival(prompt_tokens=200), cluster(**state)) == "") is let_in
    # One that waits stands before it.
    said = policy.admit(FakeArrival(prompt_tokens=200), cluster(**state, waiting_requests=1))
    assert said == ("4 requests would decode when its prompt is computed" if predict else "4 requests decode")


def test_early_rejection_without_a_decode_time_waits_for_one():
    policy = EarlyRejection(max_decoding=1)
    state = {"first_tokens_s": (1.0, 1.0, 1.0)}
    assert policy.admit(FakeArrival(), cluster(**state, now_s=2)) == ""
    assert policy.admit(FakeArrival(), cluster(**state, now_s=2, mean_decode_s=1.0)) != ""
    assert policy.admit(FakeArrival(), cluster(**state, now_s=2, mean_decode_s=0.9)) == ""
