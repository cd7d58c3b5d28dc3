"""The keys of a scenario, read from its schema: path, what it takes, default, meaning (the docstring under it)."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.scenario_base import AUTO, Part, PolicyRef

_WORDS = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}


@dataclass(frozen=True)
class Key:
    """One key of a scenario.

    Attributes
    ----------
    path
        From the top, with ``[]`` for an entry of a list and ``NAME`` for a name of the user's:
        ``cluster.pools[].replicas``.
    name
        The key itself, without those around it.
    takes
        Type and bounds in words; code is in backticks.
    default
        As YAML; ``-`` where it may be left out and is decided otherwise, empty where it has to be given.
    doc
        What it means.
    section
        Whether it holds keys of its own, which a `Section` of its path has.
    policy_kind
        The kind of policies that it names; empty for others.
    """

    path: str
    name: str
    takes: str
    default: str
    doc: str
    section: bool = False
    policy_kind: str = ""


@dataclass(frozen=True)
class Section:
    """The keys of one mapping of a scenario; of several that are alike and beside one another, those of the first.

    Attributes
    ----------
    paths
        Where it is, from the top; empty text for the top itself.
    doc
        What it holds.
    keys
        In the order of the schema.
    """

    paths: tuple[str, ...]
    doc: str
    keys: tuple[Key, ...]


@cache
def scenario_sections() -> tuple[Section, ...]:
    """Return all keys of a scenario by the mapping that they are in, each mapping before those within it."""
    return tuple(_sections(Scenario, ("",)))


def scenario_keys(under: str = "") -> list[Key]:
    """Return the keys of a scenario, each before those within it.

    Parameters
    ----------
    under
        Only this key and those within it, with or without ``[]``: ``cluster.pools.engine``. A number of an entry may
        stand in the path as it does for ``--set``.

    Raises
    ------
    InputError
        If there is no such key.
    """
    keys = list(_in_order(scenario_sections()))
    if not under:
        return keys
    wanted = plain_path(under)
    found = [key for key in keys if f"{plain_path(key.path)}.".startswith(f"{wanted}.")]
    if not found:
        known = [plain_path(key.path) for key in keys]
        raise InputError(f"unknown scenario key {under!r}{_near(wanted, known)}")
    return found


def plain_path(path: str) -> str:
    """Return the path of a key without the entries of lists: ``cluster.pools.0.replicas`` and with ``[]`` are one."""
    return ".".join(step for step in path.replace("[]", "").split(".") if not step.isdecimal() and step != "*")


def _near(wanted: str, known: list[str]) -> str:
    """Return the keys that may be meant: the nearest whole path, or those with the nearest name wherever they are."""
    by_name: dict[str, list[str]] = {}
    for path in known:
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
    last = wanted.rpartition(".")[2]
    whole = difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)
    name = difflib.get_close_matches(last, by_name, n=1, cutoff=0.7)
    found = whole if whole and last not in by_name else by_name[name[0]][:3] if name else []
    if found:
        return f"; did you mean {' or '.join(map(repr, found))}?"
    return f"; at the top are {', '.join(path for path in known if '.' not in path)}"


def _in_order(sections: tuple[Section, ...]) -> Iterator[Key]:
    by_path = {path: section for section in sections for path in section.paths}

    def walk(path: str) -> Iterator[Key]:
        section = by_path[path]
        for key in section.keys:
            here = replace(key, path=path + key.path.removeprefix(section.paths[0]) if path else key.path)
            yield here
            if here.section:
                yield from walk(here.path)

    return walk("")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _sections(part: type[Part], paths: tuple[str, ...]) -> Iterator[Section]:
    docs = _field_docs(part)
    keys: list[Key] = []
    inner: dict[type[Part], list[str]] = {}
    for name, field in part.model_fields.items():
        parts = [cls for cls in _parts_in(field.annotation) if not issubclass(cls, PolicyRef)]
        key = field.alias or name
        suffix = _suffix(field.annotation) if parts else ""
        for cls in parts:
            inner.setdefault(cls, []).extend(_below(each, f"{key}{suffix}") for each in paths)
        kinds = [cls.kind for cls in _parts_in(field.annotation) if issubclass(cls, PolicyRef)]
        keys.append(
            Key(
                path=_below(paths[0], f"{key}{suffix}"),
                name=key,
                takes=_takes(field.annotation, field.metadata),
                default=_default(field),
                doc=docs[name],
                section=bool(parts),
                policy_kind=kinds[0] if kinds else "",
            )
        )
    yield Section(paths, inspect.cleandoc(part.__doc__ or ""), tuple(keys))
    for cls, places in inner.items():
        yield from _sections(cls, tuple(places))


# ------------------------------------------------------------------------------------------------------- meaning


@cache
def _field_docs(part: type[Part]) -> dict[str, str]:
    """Return the docstring under each field of a part, those of its bases included."""
    found: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        if not issubclass(cls, Part):
            continue
        definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(text.value.value)
    return found


# ---------------------------------------------------------------------------------------------- types and bounds


def _parts_in(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [cls for inner in get_args(annotation) for cls in _parts_in(inner)]


def _suffix(annotation: Any) -> str:
    """Return what stands for the entry of a list or the name in a mapping, between a key and the keys of its parts."""
    origin = get_origin(annotation)
    if origin is tuple:
        return "[]"
    if origin is dict:
        return ".NAME"
    return next((found for inner in get_args(annotation) if (found := _suffix(inner))), "")


def _takes(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Say in words what a key takes."""
    bounds, auto = _constraints(metadata)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _takes(inner, [*metadata, *more])
    if origin in (Union, types.UnionType):
        options = [_takes(each, metadata) for each in get_args(annotation) if each is not type(None)]
        return ", or ".join(dict.fromkeys(options))
    words = _word(annotation, origin)
    text = f"{words}, {bounds}" if bounds and words in ("integer", "number") else words
    return f"{text}, or `auto`" if auto else text


def _word(annotation: Any, origin: Any) -> str:
    if origin is Literal:
        *first, last = (f"`{option}`" for option in get_args(annotation))
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple:
        entry = get_args(annotation)[0]
        return "list of mappings" if _parts_in(entry) else f"list, each: {_takes(entry)}"
    if origin is dict:
        inner = get_args(annotation)[1]
        if inner is Any:
            return "mapping"
        return "mapping of names to " + ("mappings" if _parts_in(inner) else _takes(inner))
    if isinstance(annotation, type) and issubclass(annotation, PolicyRef):
        return "policy: its name, or `{name, params}`"
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return "mapping"
    return _WORDS[annotation]


def _constraints(metadata: list[Any] | tuple[Any, ...]) -> tuple[str, bool]:
    """Return bounds in words, and whether ``auto`` may stand for nothing."""
    flat = [one for each in metadata for one in (each.metadata if isinstance(each, FieldInfo) else [each])]
    bound = {key: getattr(one, key) for one in flat for key in ("ge", "gt", "le", "lt") if hasattr(one, key)}
    if {"ge", "le"} <= bound.keys():
        said = f"{_number(bound['ge'])} to {_number(bound['le'])}"
    else:
        words = (("at least", "ge"), ("above", "gt"), ("at most", "le"), ("below", "lt"))
        said = ", ".join(f"{word} {_number(bound[key])}" for word, key in words if key in bound)
    return said, any(one is AUTO for one in flat)


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 2**31 and value.bit_count() == 1:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, PolicyRef):
        value = value.model_dump(mode="json", exclude_unset=True) if value.params else value.name
    elif isinstance(value, Part):
        value = value.model_dump(mode="json", exclude_unset=True, by_alias=True)
    elif isinstance(value, tuple):
        value = [each.model_dump(mode="json", exclude_unset=True) if isinstance(each, Part) else each for each in value]
    if value is None or value in ({}, [], [{}]):
        return "-"
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()
