from __future__ import annotations

from pathlib import Path

import pytest

from hardware_profiles import load_accelerator
from policies import registry
from simulator import Scenario
from simulator.engines import list_engines, load_engine
from simulator.errors import InputError
from simulator.resolve import Resolved, resolve
from simulator.scenario import Pool
from simulator.scenario_errors import keys_at


def resolved(engine: object, **keys: object) -> Resolved:
    return resolve(Scenario.from_mapping({"cluster": {"pools": [{"engine": engine, **keys}]}}))


@pytest.mark.parametrize("label", list_engines())
def test_flags_are_names_of_keys_that_there_are(label: str) -> None:
    """Every flag sets a key of a pool, or a parameter of the engine's own policy; none is both taken and refused."""
    engine = load_engine(label)
    parameters = {p.name for p in registry.info("batching", engine.policy).parameters}
    for flag in engine.flags:
        *path, last = flag.key.split(".")
        if path == ["batching", "params"]:
            assert last in parameters
        elif flag.key:
            assert last in keys_at(Pool, tuple(path))
        assert not set(flag.names) & engine.not_modelled
    assert len(engine.flag_names()) == len(set(engine.flag_names()))


@pytest.mark.parametrize("label", list_engines())
def test_every_engine_resolves_on_small_and_large_gpus(label: str) -> None:
    for gpu in ("l4", "a100-80gb", "h200", "mi300x"):
        pool = resolved(label, accelerator=gpu, parallel={"tp": 2}).pools[0]
        assert pool.memory.num_kv_blocks > 100
        assert pool.memory.kv_bytes + pool.memory.needed + pool.memory.reserve == pool.memory.total


@pytest.mark.parametrize(
    ("gpu", "tokens", "seqs"),
    [("a100-80gb", 2048, 256), ("h100-sxm", 8192, 1024), ("l4", 2048, 256), ("mi300x", 8192, 1024)],
)
def test_vllm_takes_larger_batches_on_large_gpus_but_not_on_an_a100(gpu: str, tokens: int, seqs: int) -> None:
    limits = load_engine("vllm").defaults(load_accelerator(gpu), 1, 1).limits
    assert (limits["max_num_batched_tokens"], limits["max_num_seqs"]) == (tokens, seqs)


def test_sglangs_share_of_memory_follows_its_formula() -> None:
    """81559 MiB, chunks of 8192, CUDA graphs to 256: 512 + 12288 + 512 + 128 MiB are left alone."""
    gpu = load_accelerator("h100-sxm")
    limits = load_engine("sglang").defaults(gpu, 1, 1).limits
    mib = gpu.memory_bytes / 2**20
    assert limits["gpu_memory_utilization"] == round((mib - 13440) / mib, 3)
    assert limits["max_num_batched_tokens"] == 8192


@pytest.mark.parametrize("label", ["sglang", "trtllm", "vllm"])
def test_windows_are_set_aside_for_every_request_that_may_run(label: str) -> None:
    """Also where the engine doesn't profile. gpt-oss-20b: 12 layers of window 128, keys and values of 8 heads of 64."""
    pool = resolve(
        Scenario.from_mapping(
            {"model": "gpt-oss-20b", "cluster": {"pools": [{"engine": label, "accelerator": "h100-sxm"}]}}
        )
    ).pools[0]
    size = pool.memory.block_size
    window = (-(-128 // size) + 1) * size
    assert pool.pool.engine.max_num_seqs
    assert pool.memory.kv_window_bytes == pool.pool.engine.max_num_seqs * window * 12 * 2 * 8 * 64 * 2


def test_a_limit_that_a_policy_misspells_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom policies.batching.sarathi import Sarathi\n"
        "@dataclass\nclass Own(Sarathi):\n    name = 'own'\n    defaults = {'max_num_seq': 3}\n"
    )
    with pytest.raises(InputError, match=r"'own'.* unknown limit 'max_num_seq'; did you mean 'max_num_seqs'"):
        resolve(Scenario.from_mapping({"cluster": {"pools": [{"batching": f"{file}:Own"}]}}))


def test_versions() -> None:
    assert load_engine("vllm").version == "0.19"
    assert load_engine("vllm@0.19.0").version == "0.19"
    assert load_engine("vllm", "0.6").policy == "vllm"
    with pytest.raises(InputError, match=r"unknown version '0\.190' of engine 'vllm'; known: 0\.6, 0\.19"):
        load_engine("vllm@0.190")


def test_args_are_the_keys_that_they_name() -> None:
    args = {"max-num-seqs": 9, "--tensor-parallel-size": 2, "enable_prefix_caching": False, "kv-cache-dtype": "fp8"}
    pool = resolved({"name": "vllm", "args": args}).pools[0].pool
    assert pool.engine.max_num_seqs == 9
    assert pool.parallel.tp == 2
    assert pool.engine.prefix_caching is False
    assert pool.dtypes.kv == "fp8"
    assert pool.engine.args == {}


def test_a_key_given_twice_with_two_values_is_an_error() -> None:
    with pytest.raises(InputError, match=r"cluster\.pools\.0\.engine\.max_num_seqs: is given twice with two values"):
        resolved({"name": "vllm", "args": {"max-num-seqs": 9}, "max_num_seqs": 8})


def test_numbers_are_read_as_the_engines_read_them() -> None:
    engine = load_engine("vllm")
    assert engine.translate_args({"max-model-len": "8k"}) == {"engine.max_model_len": 8000}
    assert engine.translate_args({"max-model-len": "8K"}) == {"engine.max_model_len": 8192}


def test_another_policy_in_an_engine_is_noted() -> None:
    notes = resolved("vllm", batching="sarathi").notes
    assert notes == ["engine vllm@0.19 with the policy 'sarathi' in place of its own 'vllm-v1'"]


def test_a_policy_brings_its_own_limits_without_an_engine() -> None:
    pool = resolve(Scenario.from_mapping({"cluster": {"pools": [{"batching": "sarathi"}]}})).pools[0].pool
    assert (pool.engine.max_num_seqs, pool.engine.max_num_batched_tokens) == (128, 512)
    assert pool.engine.prefix_caching is False


def test_the_longest_context_always_fits_the_memory() -> None:
    """``auto`` leaves the watermark of a policy aside, so that a request alone can run to its end."""
    pool = resolve(
        Scenario.from_mapping({"cluster": {"pools": [{"batching": "vllm", "engine": {"num_kv_blocks": 1000}}]}})
    ).pools[0]
    assert pool.pool.engine.max_model_len == (1000 - 10) * 16
