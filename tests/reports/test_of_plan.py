"""The report of a capacity plan says what plan.json has."""

from __future__ import annotations

import json

import pytest

from simulator import plan, report
from simulator.errors import InputError
from tests.planning.test_plan import OBJECTIVES, scenario


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("plan")
    gpus = {"a100-80gb": {"price": 1.0}, "h100-sxm": {"price": 3.0}}
    given = scenario(20.0, 300)
    plan(given, objectives=OBJECTIVES, gpus=gpus, max_gpus=1, tune=False, workers=1, seeds=1, out=out)
    return out


def test_the_answer_comes_first_and_everything_is_there(directory):
    made = report(directory)
    text = made.path.read_text()
    data = json.loads((directory / "plan.json").read_text())
    assert made.answer.startswith(data["answer"])
    assert "llama-3.1-8b on a100-80gb, no engine preset: step times are of kind" in text  # everything decided
    for each in data["what_ifs"]:
        assert each["name"] in text
    for each in data["fleets"][1:]:
        assert each["fleet"] in text
    for heading in ("Proof", "What if", "What is left to gain", "Prices", "Run it again"):
        assert f"{heading}</h2>" in text


def test_a_plan_without_what_ifs_has_none(directory):
    data = json.loads((directory / "plan.json").read_text())
    data["what_ifs"], data["lower_bound"] = [], None
    (directory / "plan.json").write_text(json.dumps(data))
    assert "What if</h2>" not in report(directory).path.read_text()


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"its schema_version is None, this version reads 1; plan again"):
        report(tmp_path)
