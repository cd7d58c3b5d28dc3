"""Runs of studies as files: `simulate run` repeats what the study found, to the last bit."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from simulator import run
from simulator.reproduce import Options, PaperFigure, Row, Run, Study, reproduce, running
from workloads import Ragged, Trace
from workloads.trace import Categorical

POOL = {"accelerator": "a100-80gb", "batching": "vllm"}


def _trace() -> Trace:
    return Trace(
        arrival_s=np.array([0.0, 0.1 + 0.2, 1 / 3]),
        prompt_tokens=np.array([64, 32, 64]),
        output_tokens=np.array([7, 5, 3]),
        priority=np.array([0, 1, 0]),
        request_class=Categorical.of(["a", "b", "a"]),
        block_hashes=Ragged.of([[1, 2, 3, 4], [1, 2], [1, 2, 5, 6]]),
        block_size_tokens=16,
        source="made up",
    )


MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
GENERATED = Run(
    "generated, 2 requests/s",
    {
        "model": "llama-3.1-8b",
        "cluster": {"pools": [POOL]},
        "workload": {"generator": {"kind": "poisson", "params": {"rate": 2.0, "requests": 20, "seed": 3}}},
    },
)
GIVEN = Run("given", {"cluster": {"pools": [POOL]}, "workload": {"rate_scale": 3.0}}, trace=_trace(), model=MODEL)


@pytest.mark.parametrize("one", [GENERATED, GIVEN], ids=lambda one: one.name)
def test_the_file_of_a_run_repeats_it(one: Run, tmp_path: Path) -> None:
    ours = one.simulate()
    one.write(tmp_path, "a study")
    again = run(tmp_path / f"{one.slug}.yaml")
    for column in ("arrival_s", "first_token_s", "last_token_s"):
        assert again.requests[column].tolist() == ours.requests[column].tolist()
    assert again.requests["class"].astype(str).tolist() == ours.requests["class"].astype(str).tolist()
    assert (tmp_path / f"{one.slug}.yaml").read_text().startswith(f"# a study: {one.name}\n")


def test_a_reproduction_names_and_writes_the_runs_of_each_figure_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(options: Options) -> Sequence[Row]:
        seconds = GENERATED.simulate().summary["ttft_s"]["mean"]
        return [
            Row("mean TTFT", seconds, "s", runs=(GENERATED,)),
            Row("against another", 1.0, "x", runs=(GENERATED, GIVEN)),
            Row("by hand", 2.0, "x"),
        ]

    study = Study("made-up", "P", "C.", {"x": PaperFigure(1.0, "x", "table 1")}, "Set up so.", "Because.", figures)
    monkeypatch.setattr(running, "load_study", lambda name: study)
    done = reproduce("made-up", out=tmp_path)
    table = csv.DictReader((tmp_path / "figures.csv").read_text().splitlines())
    files = [row["runs"].split() for row in table]
    first, second = "runs/generated-2-requests-s.yaml", "runs/given.yaml"
    assert files == [[first], [first, second], []]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "generated-2-requests-s.yaml",
        "given.yaml",
        "given.parquet",
        "given.config.json",
    }
    assert json.loads((tmp_path / "study.json").read_text())["rows"] == done.table()
    assert "# P\n# Set-up: Set up so.\n" in (tmp_path / second).read_text()
    assert run(tmp_path / first).summary["ttft_s"]["mean"] == done.rows[0].simulated


def test_different_runs_may_not_share_a_name() -> None:
    other = Run(GENERATED.name, {"model": "llama-3.1-8b"})
    row = Row("x", 1.0, "x", runs=(GENERATED, other))
    study = Study("made-up", "P", "C.", {}, "So.", "Because.", lambda options: [row])
    with pytest.raises(ValueError, match="two different runs of a study are called 'generated, 2 requests/s'"):
        running.Reproduction(study, quick=True, trace=None, rows=(row,), took_s=0.0).table()


@pytest.mark.parametrize("name", ["fastkv", "h2o", "hydragen"])
def test_a_figure_of_a_study_is_that_of_its_scenario_file(name: str, tmp_path: Path) -> None:
    done = reproduce(name, quick=True, out=tmp_path)
    assert all(row.runs for row in done.rows)
    one = done.rows[0].runs[0]
    again, ours = run(tmp_path / one.file).requests, one.simulate().requests
    assert again["last_token_s"].tolist() == ours["last_token_s"].tolist()


def test_a_study_says_why_a_figure_has_no_scenario() -> None:
    done = reproduce("context-parallelism", quick=True)
    assert not any(row.runs for row in done.rows)
    assert "nothing is simulated" in done.study.without_runs
