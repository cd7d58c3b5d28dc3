"""Every built-in policy passes every check of its kind, with its defaults and with each way of setting it."""

import random
from dataclasses import dataclass
from typing import ClassVar

import pytest

from policies import checks, registry
from policies.protocols import UNBOUNDED, BatchingPolicy, QueueingPolicy, RoutingPolicy
from policies.testing import FakeReplica

BUILT_IN = [(kind, name) for kind in checks.CHECKS for name in registry.names(kind)]
VARIANTS = [
    ("batching", "vllm", {"preemption_mode": "swap"}),
    ("batching", "vllm", {"preemption_mode": "swap", "watermark": 0.2}),
    ("batching", "hygen", {"step_budget_s": 0.0}),
    ("batching", "hygen", {"offline_priority": 0}),
    ("queueing", "hygen", {"prefix_sharing": False}),
    ("batching", "fastswitch", {"pattern": "random", "update_period": 1}),
    ("batching", "fastswitch", {"pattern": "trace", "update_period": 7, "asynchronous": False}),
    ("batching", "vllm", {"priority_preemption": True}),
    ("batching", "vllm", {"priority_preemption": True, "preemption_mode": "swap"}),
    ("batching", "vllm-v1", {"priority_preemption": True}),
    ("batching", "vllm-v1", {"long_prefill_token_threshold": 5}),
    ("batching", "vllm-v1", {"reserve_full_input": False}),
    ("batching", "vllm-v1", {"watermark": 0.1}),
    ("batching", "orca", {"reserve": "pow2"}),
    ("batching", "orca", {"reserve": "predicted"}),
    ("batching", "trtllm", {"capacity_policy": "max_utilization"}),
    ("batching", "trtllm", {"chunked_context": True}),
    ("batching", "static", {"batch_size": 1}),
    ("queueing", "sjf", {"ageing_tokens_per_s": 2.0}),
    ("routing", "prefix-aware", {"max_blocks": 1}),
    ("admission", "token-bucket", {"unit": "tokens", "per": "tenant", "rate": 500.0, "burst": 400.0}),
    ("admission", "early-rejection", {"predict": False}),
    ("admission", "queue-limit", {"per_replica": 0, "in_all": 9}),
    ("routing", "dodoor", {"loads": "probed", "beta": 0.5}),
    ("routing", "llumnix", {"queue": "first"}),
    ("rescheduling", "llumnix", {"high_priority": 0, "request": "last"}),
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_a_built_in_policy_conforms(kind, name):
    checks.check_policy(kind, name)


@pytest.mark.parametrize(("kind", "name", "params"), VARIANTS)
def test_a_built_in_policy_conforms_however_it_is_set(kind, name, params):
    checks.check_policy(kind, name, params)


@dataclass
class Bad(BatchingPolicy):
    """Does something wrong, as a test says."""

    name: ClassVar[str] = "bad"
    source: ClassVar[str] = "this test"

    def compose(self, view, plan):
        if view.num_decoding and not plan.decode_shortfall():
            plan.decode_all()
        for request in view.prefilling:
            plan.prefill(request, request.remaining_prefill)
        if view.waiting and view.num_running < 4:
            self.admit(view, plan)

    def admit(self, view, plan):
        plan.prefill(view.waiting.first, plan.uncached_tokens(view.waiting.first), reserve_tokens=96)


class Undocumented(Bad):
    source = ""


class ServesNobody(Bad):
    def admit(self, view, plan):
        pass


class OverBudget(Bad):
    def admit(self, view, plan):
        while view.waiting and view.num_running < 8:
            super().admit(view, plan)


class Twice(Bad):
    def admit(self, view, plan):
        request = view.waiting.first
        plan.prefill(request, 1, reserve_tokens=96)
        plan.prefill(request, 1, reserve_tokens=96)


class Writes(Bad):
    def admit(self, view, plan):
        view.waiting.first.priority = 3


class Peeks(Bad):
    def admit(self, view, plan):
        view.waiting.first.output_tokens


class Gambles(Bad):
    def admit(self, view, plan):
        request = view.waiting.first
        plan.prefill(request, random.randint(1, plan.uncached_tokens(request)), reserve_tokens=96)


class OutOfOrder(Bad):
    admits_in_order = True

    def admit(self, view, plan):
        *_, last = view.waiting
        plan.prefill(last, plan.uncached_tokens(last), reserve_tokens=96)


class Unstable(Bad):
    """Admits at every other step only, yet promises that nothing changes."""

    def reset(self):
        self.turn = 0

    def admit(self, view, plan):
        self.turn += 1
        if self.turn % 2 or not plan.tokens:
            super().admit(view, plan)

    def stable_steps(self, view, plan):
        return UNBOUNDED


class AdmitsAgain(Bad):
    """Starts one prompt a step, a few tokens of it, and promises that the same follows."""

    repeats_admissions = True

    def compose(self, view, plan):
        if view.num_decoding and not plan.decode_shortfall():
            plan.decode_all()
        for request in view.prefilling:
            plan.prefill(request, min(2, request.remaining_prefill))
        if view.waiting and view.num_running < 4:
            self.admit(view, plan)

    def admit(self, view, plan):
        request = view.waiting.first
        plan.prefill(request, min(2, plan.uncached_tokens(request)), reserve_tokens=96)

    def stable_steps(self, view, plan):
        return UNBOUNDED if plan.num_admitted else 1


class ChunkAfterAdmission(AdmitsAgain):
    """Admits into an empty replica only, but goes on with other chunks than the first."""

    def compose(self, view, plan):
        for request in view.prefilling:
            plan.prefill(request, min(3, request.remaining_prefill))
        if view.num_decoding and not plan.decode_shortfall():
            plan.decode_all()
        if view.waiting and not view.num_running:
            self.admit(view, plan)


class AdmitsAlone(AdmitsAgain):
    """Admits into an empty replica only, and goes on with the same chunks: its promise holds."""

    def compose(self, view, plan):
        for request in view.prefilling:
            plan.prefill(request, min(2, request.remaining_prefill))
        if view.num_decoding and not plan.decode_shortfall():
            plan.decode_all()
        if view.waiting and not view.num_running:
            self.admit(view, plan)


class AdmitsAgainUnasked(AdmitsAgain):
    """The same as `AdmitsAgain`, but nobody asks it."""

    repeats_admissions = False


class BreaksPickle(Bad):
    def reset(self):
        self.rule = lambda: 0


@pytest.mark.parametrize(
    ("check", "cls", "message"),
    [
        (checks.check_documented, Undocumented, "has no docstring|names no source"),
        (checks.check_serves_everybody, ServesNobody, r"requests \[0, 1, .* have not ended"),
        (checks.check_decisions_are_valid, ServesNobody, "waiting and 0 running for ever"),
        (checks.check_token_budget, OverBudget, "prompt tokens of 96"),
        (checks.check_decisions_are_valid, Twice, "can't be scheduled in this step"),
        (checks.check_decisions_are_valid, Writes, "uses what its views don't offer: .*'priority'"),
        (checks.check_decisions_are_valid, Peeks, "uses what its views don't offer: .*'output_tokens'"),
        (checks.check_same_seed_same_decisions, Gambles, "decided differently"),
        (checks.check_order_of_admission, OutOfOrder, "stand first"),
        (checks.check_steps_are_stable, Unstable, "promised to repeat"),
        (checks.check_steps_are_stable, AdmitsAgain, "promised to repeat"),
        (checks.check_steps_are_stable, ChunkAfterAdmission, "promised to repeat"),
    ],
)
def test_a_check_finds_what_is_wrong(check, cls, message):
    with pytest.raises(AssertionError, match=message):
        check(cls)


def test_a_policy_that_does_not_pickle_is_found():
    with pytest.raises((AssertionError, AttributeError, TypeError), match=r"lambda|pickle"):
        checks.check_pickles(BreaksPickle)


def test_the_example_of_a_sound_policy_passes():
    for check in checks.CHECKS["batching"]:
        check(Bad)


@pytest.mark.parametrize("cls", [AdmitsAlone, AdmitsAgainUnasked])
def test_a_promise_after_an_admission_that_holds_or_that_nobody_asks_for_passes(cls):
    checks.check_steps_are_stable(cls)


def test_a_policy_is_asked_after_an_admission_only_if_it_answers_for_it():
    for cls, promised in ((AdmitsAlone, UNBOUNDED), (AdmitsAgainUnasked, 1)):
        replica = FakeReplica()
        replica.add(10, 1)
        assert replica.step(cls()).stable_steps == promised


@dataclass
class OutOfRange(RoutingPolicy):
    """Always the second replica."""

    name: ClassVar[str] = "second"
    source: ClassVar[str] = "this test"

    def route(self, request, cluster):
        return 1


def test_a_router_beyond_the_replicas_is_found():
    with pytest.raises(AssertionError, match="returns replica 1 of 1"):
        checks.check_routes_to_replicas(OutOfRange)


@dataclass
class NanKey(QueueingPolicy):
    """By predicted length, without minding that there is none."""

    name: ClassVar[str] = "nan"
    source: ClassVar[str] = "this test"

    def key(self, request):
        return request.predicted_output_tokens


def test_a_nan_key_is_found():
    with pytest.raises(AssertionError, match="raise a PolicyError that asks for a predictor"):
        checks.check_works_without_predictor(NanKey)
