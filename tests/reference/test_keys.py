from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from policies.registry import KINDS
from simulator.errors import InputError
from simulator.reference import keys
from simulator.reference.keys import plain_path, scenario_keys, scenario_sections
from simulator.scenario import Scenario
from simulator.scenario_base import AUTO, Part, PolicyRef


def schema_paths(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> set[str]:
    """Return the plain paths of all keys of a JSON schema; policies are one key each."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    found: set[str] = set()
    if "properties" in node and set(node["properties"]) != {"name", "params"}:
        for name, inner in node["properties"].items():
            here = f"{path}.{name}" if path else name
            found |= {here} | schema_paths(schema, inner, here)
    for inner in node.get("anyOf", []):
        found |= schema_paths(schema, inner, path)
    if isinstance(node.get("items"), dict):
        found |= schema_paths(schema, node["items"], path)
    if isinstance(node.get("additionalProperties"), dict):
        found |= schema_paths(schema, node["additionalProperties"], f"{path}.NAME")
    return found


def test_every_key_of_the_schema_is_there_once() -> None:
    """Pydantic's own JSON schema has the same keys."""
    schema = Scenario.model_json_schema()
    listed = [plain_path(key.path) for key in scenario_keys()]
    assert len(set(listed)) == len(listed)
    assert {path.removesuffix(".NAME") for path in listed} == schema_paths(schema, schema)


def test_every_key_says_what_it_means_and_takes() -> None:
    for key in scenario_keys():
        assert key.doc.endswith("."), key.path
        assert key.takes and "None" not in key.takes, key.path


@pytest.mark.parametrize(
    ("annotation", "metadata", "words"),
    [
        (int, (), "integer"),
        (Annotated[int, Field(ge=1, le=64)] | None, (), "integer, 1 to 64"),
        (Annotated[float, Field(gt=0, le=1)], (), "number, above 0, at most 1"),
        (float, Field(ge=0, lt=1).metadata, "number, at least 0, below 1"),
        (Annotated[int, Field(ge=1, le=1024)] | Literal["tp", "all"], (), "integer, 1 to 1,024, or `tp` or `all`"),
        (Literal["a", "b", "c"], (), "`a`, `b` or `c`"),
        (bool | None, (), "`true` or `false`"),
        (Annotated[int, Field(ge=0, lt=2**63)], (), "integer, at least 0, below 2^63"),
        (Annotated[Annotated[int, Field(ge=1, le=9)] | None, AUTO], (), "integer, 1 to 9, or `auto`"),
        (tuple[Annotated[str, Field(min_length=1)], ...], (), "list, each: text"),
        (dict[str, Any], (), "mapping"),
        (dict[str, Annotated[float, Field(ge=0, le=2)]], (), "mapping of names to number, 0 to 2"),
        (PolicyRef | None, (), "policy: its name, or `{name, params}`"),
    ],
)
def test_what_a_key_takes_in_words(annotation: Any, metadata: Any, words: str) -> None:
    assert keys._takes(annotation, metadata) == words


class Inner(Part):
    """The inside."""

    size: Annotated[int, Field(ge=1, le=3)] = 2
    """How large."""


class Outer(Part):
    """The outside."""

    left: Inner = Field(default_factory=lambda: Inner(size=1))
    """On the left."""
    right: Inner | None = None
    """On the right."""
    many: Annotated[tuple[Inner, ...], Field(strict=False)] = ()
    """One after the other."""
    given: float
    """Has no default."""


def test_parts_that_are_alike_are_told_once_with_all_their_places() -> None:
    first, second = keys._sections(Outer, ("top",))
    assert second.paths == ("top.left", "top.right", "top.many[]")
    assert [(key.path, key.default, key.doc) for key in second.keys] == [("top.left.size", "2", "How large.")]
    assert [(key.path, key.default) for key in first.keys] == [
        ("top.left", "{size: 1}"),
        ("top.right", "-"),
        ("top.many[]", "-"),
        ("top.given", ""),
    ]


def test_defaults_are_those_that_an_empty_scenario_has() -> None:
    """Each default that is shown, set explicitly, leaves the scenario as it is."""
    shown = {key.path: key for key in scenario_keys()}
    checked = 0
    for path, key in shown.items():
        if key.default in ("", "-") or key.section or any(part in path for part in ("[]", "NAME")):
            continue
        value: Any = Scenario()
        for step in path.split("."):
            value = getattr(value, "request_class" if step == "class" else step, None)
            if value is None:
                break
        if value is None:
            continue  # within a part that is off
        shown_value = value.name if isinstance(value, PolicyRef) else value
        as_yaml = str(shown_value).lower() if isinstance(shown_value, bool) else shown_value
        assert str(as_yaml) == key.default or float(key.default) == as_yaml, path
        checked += 1
    assert checked > 20


def test_every_kind_of_policy_has_a_key() -> None:
    assert {key.policy_kind for key in scenario_keys()} - {""} == set(KINDS)


def test_a_part_of_the_keys_by_either_way_of_writing_a_path() -> None:
    assert scenario_keys("cluster.pools.0.engine") == scenario_keys("cluster.pools[].engine")
    assert {key.name for key in scenario_keys("workload.loop")} == {
        "loop",
        "kind",
        "clients",
        "think_time_s",
        "stagger_s",
    }
    assert [key.path for key in scenario_keys("model")] == ["model"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("max_num_seqs", "did you mean 'cluster.pools.engine.max_num_seqs'?"),
        ("worklod.trace", "did you mean 'workload.trace'?"),
        ("cluster.pools.*.tp", "did you mean 'cluster.pools.parallel.tp'?"),
        ("zzz", "at the top are schema_version, seed"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(wanted: str, said: str) -> None:
    with pytest.raises(InputError, match="unknown scenario key") as error:
        scenario_keys(wanted)
    assert said in str(error.value)


def test_sections_cover_the_keys_that_have_keys() -> None:
    places = {path for section in scenario_sections() for path in section.paths}
    assert places == {""} | {key.path for key in scenario_keys() if key.section}


def test_a_field_without_a_docstring_is_an_error() -> None:
    class Bare(Part):
        """No docstring under the field."""

        size: int = 1

    with pytest.raises(KeyError, match="size"):
        list(keys._sections(Bare, ("",)))
