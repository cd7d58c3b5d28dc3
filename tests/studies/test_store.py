"""Kept results: the same task finds its own, anything that could change the result finds none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hardware_profiles
from policies.registry import ENTRY_POINT_GROUP
from simulator.errors import InputError
from simulator.studies import store as module
from simulator.studies.identity import digest_of, program_digest
from simulator.studies.points import Outcome, Task, evaluate
from simulator.studies.store import Store, run_kept
from workloads import Trace

ROWS = "arrival_s,prompt_tokens,output_tokens\n0.0,100,5\n0.5,200,7\n"


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(ROWS)
    return path


def scenario(trace: Path, **more: Any) -> dict[str, Any]:
    return {"workload": {"trace": str(trace)}, **more}


def digest(data: Mapping[str, Any], trace: Trace | None = None) -> str:
    return digest_of(Task(data, trace))


def test_the_digest_is_of_content_not_of_names(trace_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(scenario(trace_file))
    moved = trace_file.with_name("moved.csv")
    moved.write_text(ROWS)
    assert digest(scenario(moved)) == first
    monkeypatch.chdir(moved.parent)
    assert digest({"workload": {"trace": "moved.csv"}}) == first
    assert digest({"workload": {"trace": "moved.csv"}, "seed": 0}) == first  # a default, written out
    moved.write_text(ROWS + "0.7,1,1\n")
    assert digest(scenario(moved)) != first


def test_whatever_could_change_the_result_changes_the_digest(trace_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = trace_file.with_name("mine.yaml")
    text = (Path(hardware_profiles.__path__[0]) / "accelerators" / "h100-sxm.yaml").read_text()
    profile.write_text(text)
    with_profile = scenario(trace_file, cluster={"pools": [{"accelerator": str(profile)}]})
    found = [digest(scenario(trace_file)), digest(scenario(trace_file, seed=1)), digest(with_profile)]
    profile.write_text(text + "# measured anew\n")
    found.append(digest(with_profile))
    requests = Trace(np.array([0.0]), np.array([5]), np.array([5]))
    found.append(digest({}, requests))
    found.append(digest({}, Trace(np.array([0.0]), np.array([5]), np.array([6]))))
    monkeypatch.setattr("simulator.studies.identity.program_digest", lambda: "another program")
    found.append(digest(scenario(trace_file)))
    assert len(set(found)) == len(found)


def test_the_digest_of_a_model_in_a_folder_is_of_what_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}
    config |= {"intermediate_size": 128, "vocab_size": 100, "torch_dtype": "bfloat16", "max_position_embeddings": 2048}
    found = []
    for layers in (2, 3):
        (tmp_path / "mine" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
        found.append(digest({"model": "mine"}))
        assert digest({"model": "./mine"}) == found[-1]
    assert found[0] != found[1]


def test_policies_of_other_packages_count_with_all_that_their_package_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "others_policies"
    package.mkdir(parents=True)
    for name in ("__init__.py", "policy.py", "helper.py"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = metadata.EntryPoint("theirs", "others_policies.policy:Theirs", ENTRY_POINT_GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda **given: [entry])
    first = program_digest.__wrapped__()
    (package / "helper.py").write_text("LIMIT = 2")
    assert program_digest.__wrapped__() != first


def test_a_kept_result_is_the_same_to_the_last_bit_and_not_simulated_again(trace_file: Path, tmp_path: Path) -> None:
    calls: list[Task] = []

    def counted(task: Task) -> Outcome:
        calls.append(task)
        return evaluate(task)

    kept = Store(tmp_path / "store")
    tasks = [Task(scenario(trace_file, seed=seed)) for seed in (1, 2, 1)]
    first = dict(run_kept(tasks, kept, work=counted, workers=1))
    assert len(calls) == 2 and [first[place].was_kept for place in range(3)] == [False, False, True]
    assert first[0].outcome == first[2].outcome
    again = dict(run_kept(tasks, kept, work=counted, workers=1))
    assert len(calls) == 2 and all(done.was_kept for done in again.values())
    assert [again[place].outcome for place in range(3)] == [first[place].outcome for place in range(3)]
    record = json.loads(kept.path(first[0].digest).read_text())
    assert digest(record["scenario"]) == first[0].digest  # what is kept says how to make it again


def test_a_broken_file_and_another_schema_count_as_none(trace_file: Path, tmp_path: Path) -> None:
    kept, task = Store(tmp_path / "store"), Task(scenario(trace_file))
    ((_, done),) = run_kept([task], kept, workers=1)
    path = kept.path(done.digest)
    whole = path.read_text()
    for text in ("", whole[:100], "[]", whole.replace('"schema_version": 1', '"schema_version": 999', 1)):
        path.write_text(text)
        assert kept.get(done.digest) is None
    path.write_text(whole)
    assert kept.get(done.digest) == done.outcome
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing half written is left


def test_failures_are_results_but_not_kept(trace_file: Path, tmp_path: Path) -> None:
    kept = Store(tmp_path / "store")
    tasks = [
        Task({"workload": {"trace": str(tmp_path / "none.csv")}}),
        Task({"no_such_key": 1}),
        Task(scenario(trace_file)),
    ]
    done = dict(run_kept(tasks, kept, workers=1))
    assert "none.csv" in done[0].outcome.failure and "no_such_key" in done[1].outcome.failure
    assert not done[2].outcome.failure
    assert len(list(kept.root.rglob("*.json"))) == 1


def test_without_a_store_everything_is_simulated(trace_file: Path) -> None:
    tasks = [Task(scenario(trace_file))]
    for _ in range(2):
        assert not dict(run_kept(tasks, None, workers=1))[0].was_kept


def test_the_default_is_in_the_users_cache_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(module.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.default_store() == tmp_path / "llm-cluster-simulator" / "results"
    monkeypatch.setenv(module.ENVIRONMENT, str(tmp_path / "here"))
    assert module.default_store() == tmp_path / "here"


def test_a_store_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot keep results in .*file/store: Not a directory; choose another"):
        Store(tmp_path / "file" / "store")
