from __future__ import annotations

import pytest

from policies import registry
from tests.cli.conftest import Cli, one_line


def test_policies_of_every_kind_are_listed(cli: Cli) -> None:
    out = cli("policies").out
    for kind in registry.KINDS:
        assert f"{kind}:" in out
        for name in registry.names(kind):
            assert f"  {name} " in out


def test_one_policy_is_described_with_source_and_parameters(cli: Cli) -> None:
    out = cli("policies", "batching", "sarathi").out
    for text in ("stall", "Source: Agrawal", "watermark", "0.01", "at least 0, at most 1"):
        assert text in out


def test_models_and_one_model(cli: Cli) -> None:
    assert "llama-3.1-8b" in cli("models").out
    out = cli("models", "deepseek-v3").out
    for text in ("parameters", "experts", "latent attention", "source"):
        assert text in out


def test_profiles_and_one_profile(cli: Cli) -> None:
    out = cli("profiles").out
    assert "h100-sxm" in out and "dgx-h100" in out
    assert "data sheet" in cli("profiles", "h100-sxm").out
    assert "nvswitch" in cli("profiles", "dgx-h100").out


def test_engines_and_one_engine(cli: Cli) -> None:
    assert "vllm@0.19" in cli("engines").out
    out = cli("engines", "vllm").out
    assert "--max-num-seqs" in out and "engine.max_num_seqs" in out and "Not modelled" in out


def test_keys_of_a_scenario_and_those_within_one(cli: Cli) -> None:
    assert "cluster.pools[].replicas" in cli("keys").out
    out = cli("keys", "cluster.pools.0.engine").out
    assert "cluster.pools[].engine.block_size" in out and "(integer, 1 to 65,536, or auto)" in " ".join(out.split())
    assert "workload" not in out


def test_trace_commands_are_mounted(cli: Cli) -> None:
    said = cli("trace", "inspect", "trace.csv")
    assert said.code == 0 and "40" in said.out


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out.startswith("simulate ")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["polices"], "policies"),
        (["policies", "batchin"], "did you mean 'batching'?"),
        (["policies", "batching", "sarathy"], "did you mean 'sarathi'?"),
        (["models", "llama-3.1-8bb"], "did you mean 'llama-3.1-8b'?"),
        (["profiles", "h100-smx"], "did you mean 'h100-sxm'?"),
        (["engines", "sglan"], "did you mean 'sglang'?"),
        (["keys", "enginee"], "did you mean 'cluster.pools.engine'?"),
    ],
)
def test_a_mistyped_name_is_one_line(cli: Cli, args: list[str], text: str) -> None:
    assert text in one_line(cli(*args))


def test_presets_and_one_preset(cli: Cli) -> None:
    assert "  vllm-swap " in cli("policies").out
    assert "batching:" not in cli("policies", "presets").out
    out = cli("policies", "preset", "vllm-swap").out
    for text in ("Source: vLLM", "preemption_mode: swap"):
        assert text in out
