"""What is wrong with a scenario, all of it at once, in words: file, line, key, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from simulator.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
"""A key's place: ``("cluster", "pools", 0, "replicas")``."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    text
        What it is, and what would be right.
    key
        Path of the key, dotted; the flag where it came from one; empty for the whole file.
    line
        Line in the file, from 1; None where there is no file.
    """

    text: str
    key: str = ""
    line: int | None = None

    def __str__(self) -> str:
        head = [f"line {self.line}"] if self.line is not None else []
        if self.key:
            head.append(self.key)
        return ": ".join([", ".join(head), self.text]) if head else self.text


class ScenarioError(InputError):
    """A scenario that can't be run as it is; ``problems`` has everything that is wrong with it.

    Parameters
    ----------
    where
        The file, empty without one.
    """

    def __init__(self, problems: Sequence[Problem], where: str = "") -> None:
        self.problems = tuple(problems)
        self.where = where
        if len(self.problems) == 1:
            text = f"{where}: {self.problems[0]}" if where else str(self.problems[0])
        else:
            bullets = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{where or 'scenario'}: {len(self.problems)} errors{bullets}"
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.where)


def dotted(path: Path) -> str:
    """Return a path as users write it: ``cluster.pools.0.replicas``."""
    return ".".join(map(str, path))


def problems_of(
    error: ValidationError, model: type[BaseModel], lines: Mapping[Path, int], labels: Mapping[Path, str]
) -> list[Problem]:
    """Return what pydantic found, in the order of the file.

    Parameters
    ----------
    model
        The class that was validated.
    lines
        Line of each key in the file.
    labels
        Name of the flag that set a key, by the key's path.
    """
    found = []
    entries = error.errors(include_url=False)
    for entry in entries:
        path: Path = tuple(entry["loc"])
        if entry["type"] == "too_short" and any(each["loc"][: len(path)] == path != each["loc"] for each in entries):
            continue  # it has entries, and what is wrong with them is said
        if path and path[-1] == "[key]":
            path = path[:-1]
        text = _text(entry, model, path)
        label = _label(labels, path, entry["type"])
        if label is not None:
            within = _within(labels, path[:-1] if entry["type"] == "extra_forbidden" else path)
            found.append(Problem(f"{within}: {text}" if within and label.startswith("--set ") else text, label))
            continue
        key = dotted(path[:-1] if entry["type"] == "extra_forbidden" else path)
        found.append(Problem(text, key, _line(lines, path)))
    return sorted(dict.fromkeys(found), key=lambda problem: problem.line or 0)


def _label(labels: Mapping[Path, str], path: Path, kind: str) -> str | None:
    """Return the flag that set a key or the part around it, or the only flag within a part that was refused."""
    for length in range(len(path), 0, -1):
        if path[:length] in labels:
            return labels[path[:length]]
    within = {label for key, label in labels.items() if key[: len(path)] == path}
    return within.pop() if kind == "value_error" and path and len(within) == 1 else None


def _within(labels: Mapping[Path, str], path: Path) -> str:
    """Return what a path adds to that of the flag that set the part around it."""
    length = next((length for length in range(len(path), 0, -1) if path[:length] in labels), len(path))
    return dotted(path[length:])


def _line(lines: Mapping[Path, int], path: Path) -> int | None:
    """Return the line of a key, or of the nearest one around it that the file has."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path) if path else None


def _text(entry: Any, model: type[BaseModel], path: Path) -> str:
    """Say one of pydantic's findings in our words."""
    kind, context, got = entry["type"], entry.get("ctx", {}), entry.get("input")
    shown = _shown(got)
    if kind == "extra_forbidden":
        return f"unknown key {path[-1]!r}{did_you_mean(str(path[-1]), keys_at(model, path[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        options = [option.strip("'") for option in _options(context["expected"])]
        hint = did_you_mean(got, options) if isinstance(got, str) else f"; known: {', '.join(options)}"
        return f"must be one of {', '.join(options)}, got {shown}{hint if hint.startswith('; did') else ''}"
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("above", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("below", "lt"),
    }
    if kind in bounds:
        word, key = bounds[kind]
        return f"must be {word} {_number(context[key])}, got {shown}"
    words = {
        "finite_number": "must be a finite number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "string_too_short": "must not be empty",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "too_short": "must have at least one entry",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
    }
    return f"{words.get(kind, entry['msg'])}, got {shown}"


def _options(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the mapping at a path may have."""
    return sorted({key for found in _models_at(model, path) for key in _keys(found)})


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    annotations: list[Any] = [model]
    for step in path:
        inner: list[Any] = []
        for annotation in annotations:
            fields = [item for found in _model_classes(annotation) for item in found.model_fields.items()]
            named = [field.annotation for name, field in fields if step in (name, field.alias)]
            if not named and not list(_model_classes(annotation, deep=False)):
                named = [annotation]  # a list's index, or a mapping's own key
            inner += named
        annotations = inner
    return [found for annotation in annotations for found in _model_classes(annotation)]


def _model_classes(annotation: Any, deep: bool = True) -> Iterator[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif deep:
        for argument in get_args(annotation):
            yield from _model_classes(argument)
