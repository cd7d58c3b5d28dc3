"""YAML with line numbers: the data of a file, and where each key of it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from simulator.scenario_errors import Path as KeyPath
from simulator.scenario_errors import Problem, ScenarioError, dotted

_MAX_BYTES = 10 * 2**20


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads numbers such as ``1e-3`` as numbers, as YAML 1.2 and people do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)
_DATE = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Read a file that holds one mapping.

    Returns
    -------
    tuple
        The mapping, and the line of every key, by the key's path.

    Raises
    ------
    ScenarioError
        If it can't be read, isn't YAML, has a key twice, or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ScenarioError([Problem("is larger than 10 MiB, so not a scenario")], str(path))
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError([Problem("no such file")], str(path)) from None
    except OSError as error:
        raise ScenarioError([Problem(f"can't be read ({error.strerror or error})")], str(path)) from None
    except UnicodeDecodeError:
        raise ScenarioError([Problem("is not UTF-8 text; convert it to UTF-8")], str(path)) from None
    return parse(text, str(path))


def parse(text: str, where: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Parse a text that holds one mapping; see `read`."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        problems: list[Problem] = []
        if node is not None:
            _walk(node, (), lines, problems, set())
        if problems:
            raise ScenarioError(problems, where)
        data = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise ScenarioError([_syntax(error)], where) from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise ScenarioError([Problem(f"must hold a mapping of keys, not {type(data).__name__}")], where)
    return data, lines


def value(text: str) -> Any:
    """Return the value that a text is as YAML: ``64``, ``0.5``, ``true``, ``[1, 2]``; the text itself if it's none.

    Raises
    ------
    ValueError
        If it is broken YAML.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"is not a YAML value: {text!r} ({_syntax(error).text})") from None
    finally:
        loader.dispose()


def dump(data: dict[str, Any]) -> str:
    """Return data as YAML, keys in their order."""
    return yaml.dump(data, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=120)


def _syntax(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = " ".join(str(getattr(error, "problem", None) or error).split())
    context = getattr(error, "context", None)
    text = f"not valid YAML: {said}" + (f" ({context})" if context else "")
    return Problem(text, line=None if mark is None else mark.line + 1)


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[Problem], seen: set[int]) -> None:
    """Note the line of every key, and keys that stand twice; what an alias repeats is walked once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            here = (*path, name)
            if here in lines and name != "<<":
                problems.append(Problem(f"stands twice (first on line {lines[here]})", dotted(here), line))
            lines[here] = line
            _walk(inner, here, lines, problems, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            here = (*path, index)
            lines[here] = inner.start_mark.line + 1
            _walk(inner, here, lines, problems, seen)
