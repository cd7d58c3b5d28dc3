"""Parallel plans: what a model allows, and how layers are split."""

import pytest

from simulator.errors import InputError
from simulator.models import load_model
from simulator.parallel import ParallelPlan, feasible_tp


def test_replica_uses_tp_times_pp_accelerators():
    assert ParallelPlan().gpus == 1
    assert ParallelPlan(tp=4, pp=2).gpus == 8


@pytest.mark.parametrize(
    ("layers", "pp", "counts"),
    [
        (32, 1, [32]),
        (32, 4, [8, 8, 8, 8]),
        (61, 2, [31, 30]),  # with two stages the first is the only one before the last
        (26, 4, [6, 7, 7, 6]),  # the middle ones first
        (27, 4, [7, 7, 7, 6]),
        (5, 3, [2, 2, 1]),
        (4, 3, [1, 2, 1]),
    ],
)
def test_layers_are_split_as_vllm_splits_them(layers, pp, counts):
    stages = ParallelPlan(pp=pp).stage_layers(layers)
    assert [len(stage) for stage in stages] == counts
    assert [layer for stage in stages for layer in stage] == list(range(layers))


def test_key_value_heads_divide_or_are_replicated():
    llama = load_model("llama-3.1-8b")  # 32 heads, 8 key-value heads
    assert feasible_tp(llama) == [1, 2, 4, 8, 16, 32]
    ParallelPlan(tp=16).check(llama)


def test_latent_cache_does_not_limit_tp():
    ParallelPlan(tp=16, pp=4).check(load_model("deepseek-v3"))


@pytest.mark.parametrize(("tp", "nearest"), [(3, 2), (7, 8), (64, 32)])
def test_error_names_the_nearest_tp(tp, nearest):
    with pytest.raises(InputError, match=rf"tp={tp} does not split the 32 heads and 8 .* nearest: tp={nearest} "):
        ParallelPlan(tp=tp).check(load_model("llama-3.1-8b"))


def test_error_names_the_nearest_pp():
    with pytest.raises(InputError, match=r"pp=33 exceeds the 32 layers of llama-3.1-8b; nearest: pp=32"):
        ParallelPlan(pp=33).check(load_model("llama-3.1-8b"))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_sizes_are_whole_and_positive(value):
    with pytest.raises(InputError, match="tp must be a whole number of at least 1"):
        ParallelPlan(tp=value)
