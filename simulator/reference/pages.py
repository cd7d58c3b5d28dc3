"""Pages of the reference in Markdown, each made anew of the schema, the policies, the commands and the catalogues.

The documentation puts them where a page says ``<!-- generated: NAME -->`` (docs/conf.py). Targets of links begin with
the kind of thing (``key-cluster-pools-replicas``, ``policy-batching-sarathi``), so that none is there twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import simulator
from policies import registry
from policies.registry import ParameterInfo, PolicyInfo
from simulator.reference import catalogues
from simulator.reference.commands import Command, Parameter, all_commands
from simulator.reference.keys import Key, plain_path, scenario_keys, scenario_sections
from simulator.reference.markdown import anchor, cited, definition, heading, prose, table

_JOIN = "\n\n"


def key_anchor(path: str) -> str:
    """Return the target of links to a scenario key."""
    return anchor("key", plain_path(path))


def key_link(path: str) -> str:
    """Return a link to a scenario key."""
    return f"[`{path}`](#{key_anchor(path)})"


def policy_anchor(kind: str, name: str) -> str:
    """Return the target of links to a policy."""
    return anchor("policy", kind, name)


# -------------------------------------------------------------------------------------------------- scenario keys


def scenario_page() -> str:
    """Return every scenario key by the mapping that it is in."""
    blocks = []
    for section in scenario_sections():
        if section.paths != ("",):
            title = ", ".join(f"`{path}`" for path in section.paths)
            anchors = (anchor("keys", plain_path(path)) for path in section.paths)
            blocks += [heading(3 if "." in section.paths[0] else 2, title, *anchors), prose(section.doc)]
        else:
            blocks.append(heading(2, "At the top"))
        blocks += [_key_entry(key, section.paths) for key in section.keys]
    return _JOIN.join(blocks)


def _key_entry(key: Key, paths: tuple[str, ...]) -> str:
    """Return the entry of a key, with a target for each place that it is in."""
    below = key.path.removeprefix(paths[0]).removeprefix(".")
    term = f"`{key.name}`"
    for path in paths:
        term = f"[{term}]{{#{key_anchor(f'{path}.{below}' if path else below)}}}"
    takes = key.takes
    if key.policy_kind:
        takes = takes.replace("policy", f"[policy](#{anchor('kind', key.policy_kind)})", 1)
    elif key.section:
        takes = f"[{takes}](#{anchor('keys', plain_path(key.path))})"
    if not key.default:
        takes += "; required"
    elif key.default != "-":
        takes += f"; default `{key.default}`"
    return definition(f"**{term}** *{takes}*", prose(key.doc))


# ------------------------------------------------------------------------------------------------------- policies


def policies_page() -> str:
    """Return the names of all policies, by kind, with links to them."""
    rows = []
    for kind in registry.KINDS:
        links = (f"[{name}](#{policy_anchor(kind, name)})" for name in registry.names(kind))
        rows.append((f"[`{kind}`](#{anchor('kind', kind)})", ", ".join(links)))
    return table(("kind", "policies"), rows)


def policy_kind_page(kind: str) -> str:
    """Return every policy of a kind, under what the kind decides and where a scenario names one."""
    places = [key.path for key in scenario_keys() if key.policy_kind == kind]
    base = inspect.cleandoc(registry.base_of(kind).__doc__ or "").split("\n\n", 1)[0]
    title = heading(1, f"{kind.replace('_', ' ').capitalize().replace('Kv', 'KV')} policies", anchor("kind", kind))
    blocks = [title, prose(base), f"Scenario: {' or '.join(map(key_link, places))}."]
    for info in registry.describe(kind):
        blocks += _policy(info)
    return _JOIN.join(blocks)


def _policy(info: PolicyInfo) -> Iterator[str]:
    yield heading(2, f"`{info.name}`", policy_anchor(info.kind, info.name))
    yield prose(info.doc)
    yield f"**Source**: {cited(info.source)}"
    yield f"**File**: `{info.origin}`"
    if info.parameters:
        yield "**Parameters**"
        yield from map(_parameter, info.parameters)


_TYPES = {"int": "integer", "float": "number", "str": "text", "bool": "`true` or `false`"}


def _parameter(parameter: ParameterInfo) -> str:
    """Return the entry of a parameter, said in the words that keys are."""
    if parameter.objective:
        default = f"`objectives.{parameter.objective}`"
    else:
        shown = str(parameter.default).lower() if isinstance(parameter.default, bool) else str(parameter.default)
        default = f"`{shown}`" + (f" {parameter.unit}" if parameter.unit else "")
    takes = _TYPES.get(parameter.type, parameter.type)
    if parameter.choices:
        takes = " or ".join(f"`{choice}`" for choice in parameter.choices)
    elif parameter.bounds:
        takes += f", {parameter.bounds}"
    return definition(f"**`{parameter.name}`** *{takes}; default {default}*", prose(parameter.doc))


def presets_page() -> str:
    """Return every preset with its scenario keys."""
    from simulator import scenario_yaml
    from simulator.presets import list_presets, load_preset

    blocks = []
    for name in list_presets():
        preset = load_preset(name)
        keys = scenario_yaml.dump(dict(preset.scenario)).strip()
        blocks += [heading(2, f"`{name}`", anchor("preset", name)), prose(preset.summary)]
        blocks += [f"**Source**: {cited(preset.source)}", f"```yaml\n{keys}\n```"]
    return _JOIN.join(blocks)


# ------------------------------------------------------------------------------------------------------- commands


def commands_page() -> str:
    """Return every command with its arguments and options."""
    return _JOIN.join(block for command in all_commands() for block in _command(command))


def _command(command: Command) -> Iterator[str]:
    yield heading(min(command.words.count(" ") + 1, 3) + 1, f"`{command.words}`", anchor("command", command.words))
    yield f"```\n{command.words} {command.usage}\n```"
    yield prose(command.doc)
    if command.commands:
        yield "Commands: " + ", ".join(f"[`{words}`](#{anchor('command', words)})" for words in command.commands) + "."
    yield from map(_option, (*command.arguments, *command.options))


def _option(parameter: Parameter) -> str:
    key = f"Sets {key_link(parameter.key)}." if parameter.key else ""
    return definition(f"`{parameter.names}`", " ".join(filter(None, (prose(parameter.doc), key))))


# ------------------------------------------------------------------------------------------------------ catalogues


def models_page() -> str:
    """Return the models of the catalogue."""
    from simulator.models import list_models

    blocks = [_rows(catalogues.model_rows(), "model")]
    for name in list_models():
        figures = [row for row in catalogues.model_figures(name) if row[0] != "model"]
        blocks += [heading(2, f"`{name}`", anchor("model", name)), table(("figure", "value"), figures)]
    return _JOIN.join(blocks)


def hardware_page() -> str:
    """Return the GPUs, the nodes, and what GPUs cost."""
    from hardware_profiles import list_accelerators, list_nodes, load_accelerator, load_node

    blocks = [heading(2, "GPUs"), _rows(catalogues.accelerator_rows(), "gpu")]
    blocks += [heading(2, "Nodes"), _rows(catalogues.node_rows(), "node")]
    columns, *offers = catalogues.price_rows()
    prices = table(columns[:6], ((*cells[:5], f"[{cells[5]}]({cells[6]})") for cells in offers))
    blocks += [heading(2, "Prices"), prices, heading(2, "Figures and sources")]
    for kind, names, load in (("gpu", list_accelerators(), load_accelerator), ("node", list_nodes(), load_node)):
        for name in names:
            header, *rows = catalogues.profile_figures(load(name))
            blocks += [heading(3, f"`{name}`", anchor(kind, name)), table(header, rows)]
    return _JOIN.join(blocks)


def engines_page() -> str:
    """Return the engines with their flags and what is refused."""
    from simulator.engines import list_engines, load_engine

    blocks = [_rows(catalogues.engine_rows(), "engine")]
    for label in list_engines():
        engine = load_engine(label)
        (flag, key), *rows = catalogues.engine_flag_rows(engine)
        refused = ", ".join(f"`{each}`" for each in sorted(engine.not_modelled))
        blocks += [
            heading(2, f"`{label}`", anchor("engine", label)),
            f"Batching policy [{engine.policy}](#{policy_anchor('batching', engine.policy)}). Source: {engine.source}",
            table((flag, key), ((f"`{names}`", _flag_key(said)) for names, said in rows)),
            f"**Not modelled**, and refused: {refused}.",
        ]
    return _JOIN.join(blocks)


def _flag_key(said: str) -> str:
    known = {plain_path(key.path): key.path for key in scenario_keys("cluster.pools")}
    path = known.get(f"cluster.pools.{said}")
    return key_link(path) if path else said


def _rows(rows: catalogues.Rows, kind: str) -> str:
    header, *rest = rows
    return table(header, ((f"[{name}](#{anchor(kind, name)})", *cells) for name, *cells in rest))


# --------------------------------------------------------------------------------------------------------- Python


def python_page() -> str:
    """Return directives that Sphinx's ``autodoc`` follows: public functions, those that draw, and classes."""
    from simulator import figures

    public = {name: getattr(simulator, name) for name in simulator.__all__}
    functions = [_autodoc("autofunction", name, "") for name, value in public.items() if inspect.isfunction(value)]
    classes = []
    for name, value in public.items():
        if inspect.isclass(value):
            fields = getattr(value, "model_fields", {})  # those of a scenario are on the page of its keys
            options = ":members:" + (f"\n   :exclude-members: model_config, {', '.join(fields)}" if fields else "")
            classes.append(_autodoc("autoclass", f"{name}()" if fields else name, options))
    drawn = [_autodoc("autofunction", f"figures.{name}", "") for name in sorted(figures.__all__)]
    return _JOIN.join(
        ["## Calls", *functions, "## Figures", "`from simulator import figures`", *drawn, "## Classes", *classes]
    )


def _autodoc(directive: str, signature: str, options: str) -> str:
    lines = [f".. {directive}:: simulator.{signature}", *([f"   {options}"] if options else [])]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


PAGES: dict[str, Callable[[], str]] = {
    "scenario-keys": scenario_page,
    "policies": policies_page,
    **{f"policies-{kind.replace('_', '-')}": partial(policy_kind_page, kind) for kind in registry.KINDS},
    "presets": presets_page,
    "commands": commands_page,
    "models": models_page,
    "hardware": hardware_page,
    "engines": engines_page,
    "python": python_page,
}
"""What can be generated, by the name that a page of the documentation asks for it by."""
