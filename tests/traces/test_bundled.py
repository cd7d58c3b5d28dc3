"""Bundled traces are what their README says made them, and are found by name."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import traces
from simulator.cli.trace import app
from workloads import TraceError, read_trace
from workloads.trace import Categorical, Ragged

COMMANDS = re.findall(r"^simulate trace (generate .*)$", (Path(traces.__file__).parent / "README.md").read_text(), re.M)


def test_the_readme_has_a_command_for_each():
    made = {Path(command.split()[-1]).name.partition(".")[0] for command in COMMANDS}
    assert made == set(traces.names()) == {"burstgpt-style", "shared-prefix"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: Path(command.split()[-1]).name)
def test_the_command_makes_the_trace(tmp_path, monkeypatch, command):
    """Lengths may differ by a token and times in the last digits where another processor rounds exp otherwise."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    file = Path(shlex.split(command)[-1])
    made, kept = read_trace(file), read_trace(f"bundled:{file.name.partition('.')[0]}")
    assert made.columns().keys() == kept.columns().keys()
    for name, column in kept.columns().items():
        other = made.columns()[name]
        if name == "row_key":
            continue
        if isinstance(column, Categorical):
            assert column.texts() == other.texts()
        elif isinstance(column, Ragged):
            np.testing.assert_array_equal(column.offsets, other.offsets)
            np.testing.assert_array_equal(column.values, other.values)
        elif name.endswith("_tokens"):
            np.testing.assert_allclose(other, column, atol=1)
        else:
            np.testing.assert_allclose(other, column, rtol=1e-9)


def test_bundled_traces_are_small_and_named_in_results():
    for name in traces.names():
        assert traces.path(name).stat().st_size < 300_000
        assert read_trace(f"bundled:{name}").source == f"bundled:{name}"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(KeyError, match="known: burstgpt-style, shared-prefix"):
        traces.path("x")
    with pytest.raises(TraceError, match="no bundled trace is called 'burstgpt'; did you mean 'burstgpt-style'"):
        read_trace("bundled:burstgpt")
