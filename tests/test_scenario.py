from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Scenario
from simulator.resolve import resolve
from simulator.scenario import ScenarioError, assemble
from simulator.scenario_base import Part, PolicyRef
from simulator.scenario_yaml import parse, value


def problems(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_yaml(path)
    assert str(caught.value).startswith(str(path))
    return [str(problem) for problem in caught.value.problems]


def pool_of(**keys: object) -> dict[str, object]:
    return {"cluster": {"pools": [keys]}}


def test_nothing_is_needed() -> None:
    scenario = Scenario.from_mapping({})
    assert scenario == Scenario()
    assert scenario.model == "llama-3.1-8b"
    assert scenario.to_mapping() == {}


def test_everything_is_written_out_and_read_back(tmp_path: Path) -> None:
    """A resolved scenario leaves nothing open, and resolving it again changes nothing."""
    resolved = resolve(Scenario.from_mapping(pool_of(engine="sglang", parallel={"tp": 2}))).scenario
    (tmp_path / "s.yaml").write_text(resolved.to_yaml())
    again = Scenario.from_yaml(tmp_path / "s.yaml")
    assert again.to_mapping(everything=True) == resolved.to_mapping(everything=True)
    assert resolve(again).scenario == resolved


def test_short_forms_mean_the_long_ones() -> None:
    short = {
        "workload": {"loop": {"clients": 3}, "class": "chat"},
        "router": "random",
        "predictor": "oracle",
        "cluster": {"pools": [{"batching": "sarathi", "engine": "vllm@0.19", "cost": {"constant": {"step_s": 0.1}}}]},
    }
    full = {
        "workload": {"loop": {"kind": "closed", "clients": 3}, "class": ["chat"]},
        "router": {"name": "random"},
        "predictor": {"kind": "oracle"},
        "cluster": {
            "pools": [
                {
                    "batching": {"name": "sarathi"},
                    "engine": {"name": "vllm", "version": "0.19"},
                    "cost": {"kind": "constant", "step_s": 0.1},
                }
            ]
        },
    }
    assert Scenario.from_mapping(short) == Scenario.from_mapping(full)


def test_auto_means_left_out() -> None:
    auto = pool_of(engine={"max_model_len": "auto", "num_kv_blocks": "auto"})
    assert resolve(Scenario.from_mapping(auto)).scenario == resolve(Scenario()).scenario


# ------------------------------------------------------------------------------------------------------- errors


def test_all_errors_are_shown_at_once_with_line_key_and_nearest_name(tmp_path: Path) -> None:
    found = problems(
        "seed: -1\n"
        "modle: x\n"
        "workload:\n"
        "  rate_scale: .inf\n"
        "  loop: {kind: clsed}\n"
        "cluster:\n"
        "  pools:\n"
        "  - replcas: 3\n"
        "    accelerator: h100-sxmm\n"
        "    batching: {name: sarathi, params: {watermrk: 0.1}}\n"
        "    engine: {max_num_seqs: 1.5}\n"
        "objectives: {classes: {chat: {tptp_s: 1}}}\n",
        tmp_path,
    )
    assert found == [
        "line 1, seed: must be at least 0, got -1",
        "line 2: unknown key 'modle'; did you mean 'model'?",
        "line 4, workload.rate_scale: must be a finite number, got inf",
        "line 5, workload.loop.kind: must be one of open, closed, sessions, got 'clsed'; did you mean 'closed'?",
        "line 8, cluster.pools.0: unknown key 'replcas'; did you mean 'replicas'?",
        "line 9, cluster.pools.0.accelerator: unknown accelerator 'h100-sxmm'; did you mean 'h100-sxm'?",
        "line 10, cluster.pools.0.batching: unknown parameter 'watermrk' of batching policy 'sarathi'; "
        "did you mean 'watermark'? its parameters: watermark",
        "line 11, cluster.pools.0.engine.max_num_seqs: must be a whole number, got 1.5",
        "line 12, objectives.classes.chat: unknown key 'tptp_s'; did you mean 'tpot_s'?",
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1\nb: 2\n", 2, "not valid YAML"),
        ("seed: 1\nseed: 2\n", 2, "stands twice (first on line 1)"),
        ("seed: 1\n\tmodel: x\n", 2, "not valid YAML"),
        ("seed: true\n", 1, "must be a whole number, got True"),
        ("seed: '1'\n", 1, "must be a whole number, got '1'"),
        ("seed: 1e30\n", 1, "must be a whole number"),
        ("schema_version: 2\n", 1, "must be one of 1, got 2"),
        ("cluster: {pools: []}\n", 1, "at least one pool"),
        ("cluster: {pools: [{}, {}]}\n", 1, "two pools are called 'default'"),
        ("cluster: 3\n", 1, "must be a mapping"),
        ("workload: {limit: 0}\n", 1, "must be at least 1, got 0"),
        ("workload: {start_s: 5, end_s: 4}\n", 1, "'end_s' must be above 'start_s'"),
        ("workload: {trace: a, generator: poisson}\n", 1, "not both"),
        ("workload: {loop: closed}\n", 1, "needs 'clients'"),
        ("predictor: noisy\n", 1, "needs 'sigma' or 'relative_error'"),
        ("predictor: {kind: oracle, sigma: 1}\n", 1, "for a noisy predictor only"),
        ("measure: {warmup_s: 9, until_s: 3}\n", 1, "'until_s' must be above 'warmup_s'"),
        ("objectives: {ttft_s: -1}\n", 1, "must be above 0, got -1"),
        ("cluster: {pools: [{cost: constant}]}\n", 1, "'step_s' is needed"),
        ("cluster: {pools: [{dtypes: {kv: fp7}}]}\n", 1, "unknown datatype 'fp7'"),
        ("cluster: {pools: [{engine: {gpu_memory_utilization: 1.5}}]}\n", 1, "must be at most 1, got 1.5"),
        ("cluster: {pools: [{engine: {args: {a: 1}}}]}\n", 1, "'args' needs 'name'"),
        ("cluster: {pools: [{engine: {name: vllm, args: {enable-lora: true}}}]}\n", 1, "not modelled"),
        ("cluster: {pools: [{engine: {name: vllm@0.6, version: '0.19'}}]}\n", 1, "given twice"),
    ],
)
def test_one_error_names_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    (found,) = problems(text, tmp_path)
    assert found.startswith(f"line {line}")
    assert said in found


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    assert "must hold a mapping" in problems("- 1\n", tmp_path)[0]
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        Scenario.from_yaml(tmp_path / "s.yaml")


def test_aliases_that_multiply_end_quickly() -> None:
    text = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    data, lines = parse(text, "bomb")
    assert len(data) == 60 and len(lines) < 1000


# ------------------------------------------------------------------------------------------------------ updated


def test_updated_changes_keys_and_checks_anew() -> None:
    scenario = Scenario.from_mapping({"router": "random"})
    changed = scenario.updated({"cluster.pools.0.engine.max_num_seqs": 64, "router.name": "least-tokens", "seed": 3})
    assert changed.cluster.pools[0].engine.max_num_seqs == 64
    assert (changed.router.name, changed.seed) == ("least-tokens", 3)
    assert scenario.router.name == "random"
    with pytest.raises(ScenarioError, match=r"cluster\.pools\.0\.engine\.max_num_seqs: must be at least 1, got 0"):
        scenario.updated({"cluster.pools.0.engine.max_num_seqs": 0})
    with pytest.raises(ScenarioError, match=r"unknown key 'sede'; did you mean 'seed'"):
        scenario.updated({"sede": 1})


def test_known_keys_are_those_of_the_part_alone() -> None:
    with pytest.raises(ScenarioError, match=r"offload\.weights: unknown key 'ram'; known: cpu, disk, gpu$"):
        Scenario.from_mapping(pool_of(offload={"weights": {"ram": 1.0}}))


def test_what_a_flag_set_is_named_within_it_and_a_bad_entry_is_said_once() -> None:
    with pytest.raises(ScenarioError, match=r"^--set clients: timeout_s: must be above 0, got 0$"):
        assemble(None, [("clients", {"timeout_s": 0}, "--set clients")])
    with pytest.raises(ScenarioError) as found:
        Scenario.from_mapping(pool_of(kv_tiers=[{"tier": "tape", "capacity_gib": 5}]))
    assert [problem.text for problem in found.value.problems] == ["must be one of host, flash, remote, got 'tape'"]


def test_none_takes_a_key_back_to_its_default() -> None:
    scenario = Scenario.from_mapping(pool_of(engine={"max_num_seqs": 64}))
    assert scenario.updated({"cluster.pools.0.engine.max_num_seqs": None}).cluster.pools[0].engine.max_num_seqs is None


def test_a_star_means_every_entry() -> None:
    scenario = Scenario.from_mapping({"cluster": {"pools": [{"name": "a"}, {"name": "b"}]}})
    changed = scenario.updated({"cluster.pools.*.replicas": 3})
    assert [pool.replicas for pool in changed.cluster.pools] == [3, 3]


def test_a_scenario_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Scenario().seed = 3  # type: ignore[misc]


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers())
def test_any_number_is_taken_or_refused_in_words(number: float, whole: int) -> None:
    for changes in ({"workload.rate_scale": number}, {"workload.limit": whole}, {"measure.until_s": number}):
        try:
            Scenario().updated(changes)
        except ScenarioError as error:
            assert " must be " in str(error)


@pytest.mark.parametrize(("text", "meant"), [("1e-3", 0.001), ("64", 64), ("true", True), ("a b", "a b"), ("", None)])
def test_values_on_the_command_line_are_yaml(text: str, meant: object) -> None:
    assert value(text) == meant


def _parts(part: type[Part]) -> set[type[Part]]:
    """Return a part of the scenario and all parts that its fields name, whatever module defines them."""
    inner = {cls for field in part.model_fields.values() for cls in _classes_in(field.annotation)}
    return {part}.union(*(_parts(cls) for cls in inner))


def _classes_in(annotation: object) -> list[type[Part]]:
    """Return the parts that a field's annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [cls for inner in get_args(annotation) for cls in _classes_in(inner)]


def test_every_field_is_documented() -> None:
    """The docstring under a field is its documentation."""
    for part in _parts(Scenario) | {PolicyRef}:
        source = textwrap.dedent(inspect.getsource(part))
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]  # a class
        documented = {
            field.target.id
            for field, text in pairwise(body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        own = {name for name in vars(part).get("__annotations__", {}) if name in part.model_fields}
        assert own <= documented, f"{part.__name__}: {', '.join(sorted(own - documented))}"
