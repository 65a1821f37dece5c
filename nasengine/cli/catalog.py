"""The commands that tell what there is: list and schema. They import no torch."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import sys
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from nasengine.errors import InputError, PluginError, did_you_mean
from nasengine.estimator import Estimator
from nasengine.plugin import PLUGIN_KIND, Plugin, installed, load_class
from nasengine.plugin_name import PluginName
from nasengine.settings_docs import settings_docs
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.task import DataSource, Task

CONTRACTS: dict[str, type[Plugin]] = {
    "spaces": SearchSpace,
    "strategies": Strategy,
    "estimators": Estimator,
    "tasks": Task,
    "data": DataSource,
}


def list_plugins(options: argparse.Namespace, _: threading.Event) -> int:
    """List the installed plugins: all in a line each, those that are named with settings."""
    wanted = dict.fromkeys(options.names)
    classes = {kind: _classes(contract) for kind, contract in CONTRACTS.items()}
    if wanted:
        classes = _named(classes, list(wanted))
    whole = bool(wanted) or options.json
    listed = {
        kind: {name: _about(cls, whole=whole) for name, cls in found.items()}
        for kind, found in classes.items()
    }
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    for kind, plugins in listed.items():
        print(kind)
        for name, about in plugins.items():
            print_wrapped(f"  {name:18} ", about["summary"])
            for setting, told in about.get("settings", {}).items():
                text = " ".join(filter(None, [told["about"], _sentence(told["allowed"])]))
                print_wrapped(f"    {setting} = {told['default']}  ", text)
    if not wanted:
        print("settings: nasengine list NAME, or a whole kind: nasengine list strategies")
    return 0


Classes = dict[str, dict[str, type[Plugin]]]
"""Kind to the plugins of it, by name."""


def _named(classes: Classes, names: Sequence[str]) -> Classes:
    """Return the plugins that are named: one, all of a kind, or a class of one's own.

    Raises
    ------
    InputError
        If there is neither a plugin nor a kind of a name.
    """
    found: Classes = {}
    for name in names:
        if PluginName.parse(name).is_own or name.endswith(".py"):
            own = load_class(Plugin, name, Path.cwd())
            here = {
                k: {name: own} for k, contract in CONTRACTS.items() if issubclass(own, contract)
            }
        elif name in CONTRACTS:
            here = {name: classes[name]}
        else:
            here = {k: {name: held[name]} for k, held in classes.items() if name in held}
        if not here:
            known = [*CONTRACTS, *(plugin for plugins in classes.values() for plugin in plugins)]
            raise InputError(f"list: no plugin or kind {name!r}; {did_you_mean(name, known)}")
        for kind, plugins in here.items():
            found.setdefault(kind, {}).update(plugins)
    return {kind: found[kind] for kind in CONTRACTS if kind in found}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def print_wrapped(head: str, text: str) -> None:
    """Print text behind its head, as wide as the terminal; further lines stand further in."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    print(
        textwrap.fill(head + text, max(width, 40), subsequent_indent=indent, break_on_hyphens=False)
    )


def _classes(contract: type[Plugin]) -> dict[str, type[Plugin]]:
    """Return the installed plugins; one that cannot be imported is told, and hides no other."""
    found: dict[str, type[Plugin]] = {}
    for name in installed(contract.kind):
        try:
            found[name] = load_class(contract, name)
        except PluginError as error:
            print(f"warning: {error}", file=sys.stderr)
    return found


def _about(cls: type[Plugin], *, whole: bool) -> dict[str, Any]:
    """Return a plugin's summary, and with it its settings."""
    about: dict[str, Any] = {"summary": _plain(cls.summary())}
    return {**about, "settings": _settings(cls)} if whole else about


def _plain(text: str) -> str:
    """Return a docstring's text in one line, without its marks of code."""
    return " ".join(text.replace("`", "").split())


def _settings(cls: type[BaseModel], prefix: str = "") -> dict[str, dict[str, str]]:
    """Return what each setting is by default, means and may be; those of a table by their paths."""
    found: dict[str, dict[str, str]] = {}
    docs, schema = settings_docs(cls), _schema(cls)
    for name, field in cls.model_fields.items():
        path = prefix + (field.alias or name)
        needed = field.is_required()
        default = None if needed else field.get_default(call_default_factory=True)
        found[path] = {
            "default": "(needed)" if needed else _toml(default),
            "about": _plain(docs.get(name, "")),
            "allowed": _allowed(schema.get(field.alias or name, {})),
        }
        if isinstance(default, BaseModel) and not isinstance(default, Plugin):
            found |= _settings(type(default), f"{path}.")
    return found


def _schema(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of each setting; none where a user's type has no schema."""
    try:
        properties: dict[str, Any] = cls.model_json_schema().get("properties", {})
    except PydanticInvalidForJsonSchema:
        return {}
    return properties


def _allowed(schema: Mapping[str, Any]) -> str:
    """Say which values a JSON Schema allows, beyond their type; empty where it allows all.

    Examples
    --------
    >>> _allowed({"enum": ["sgd", "adam"]}), _allowed({"minimum": 0, "exclusiveMaximum": 1})
    ('one of "sgd", "adam"', 'at least 0 and below 1')
    >>> _allowed({"type": "integer", "exclusiveMinimum": 0}), _allowed({"minimum": 2, "maximum": 8})
    ('at least 1', '2 to 8')
    """
    if "enum" in schema:
        return f"one of {', '.join(map(json.dumps, schema['enum']))}"
    if PLUGIN_KIND in schema:
        kind = next(k for k, c in CONTRACTS.items() if c.kind == schema[PLUGIN_KIND])
        return f"a table with the name of one: nasengine list {kind}"
    if "anyOf" in schema:
        parts = [_allowed(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts)) if all(parts) else ""
    if "items" in schema:
        each = _allowed(schema["items"])
        return f"each {each}" if each else ""
    return _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema and schema["type"] == "integer":
        low = schema["exclusiveMinimum"] + 1
    if low is not None and high is not None:
        return f"{low} to {high}"
    said = {
        "at least": low,
        "above": schema.get("exclusiveMinimum") if low is None else None,
        "at most": high,
        "below": schema.get("exclusiveMaximum"),
    }
    return " and ".join(f"{word} {value}" for word, value in said.items() if value is not None)


def _toml(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, BaseModel):
        return "{ ... }"
    if isinstance(value, (bool, int, float, str, list, tuple)):
        return json.dumps(value)
    return "{}" if value == {} else json.dumps(str(value))


def print_schema(_: argparse.Namespace, __: threading.Event) -> int:
    """Print the JSON Schema of specs, with every installed plugin's settings."""
    print(json.dumps(spec_schema(), indent=2))
    return 0


def spec_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec."""
    from nasengine.runs.spec import Spec

    schema: dict[str, Any] = Spec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nasengine spec"
    definitions = schema.setdefault("$defs", {})
    for kind, contract in CONTRACTS.items():
        definitions[kind] = _one_of(contract, definitions)
    for key, kind in (("space", "spaces"), ("task", "tasks"), ("strategy", "strategies")):
        schema["properties"][key] = {"$ref": f"#/$defs/{kind}"}
    estimators = {"type": "object", "additionalProperties": {"$ref": "#/$defs/estimators"}}
    schema["properties"]["estimators"] = {**estimators, "minProperties": 1}
    definitions["FinalTable"]["properties"]["estimators"] = estimators
    return schema


def _one_of(contract: type[Plugin], definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe a table that is one of the installed plugins, or the user's own."""
    own = {
        "properties": {"name": {"type": "string", "pattern": ":"}},
        "required": ["name"],
    }
    options: list[dict[str, Any]] = [own]
    for name, cls in _classes(contract).items():
        described = _described(cls, definitions)
        described["properties"] = {"name": {"const": name}, **described.get("properties", {})}
        if contract is not Estimator:  # An estimator's name may be its key.
            described["required"] = ["name", *described.get("required", [])]
        described["description"] = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
        options.append(described)
    return {"anyOf": options}


def _described(cls: type[Plugin], definitions: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = _with_plugins(cls.model_json_schema())
    definitions.update(described.pop("$defs", {}))
    described.pop("title", None)
    described["type"] = "object"
    described["additionalProperties"] = False
    return described


def _with_plugins(schema: Any) -> Any:
    """Refer to the list of plugins wherever a setting is one."""
    if isinstance(schema, list):
        return [_with_plugins(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if PLUGIN_KIND in schema:
        kind = next(k for k, c in CONTRACTS.items() if c.kind == schema[PLUGIN_KIND])
        rest = {key: value for key, value in schema.items() if key not in (PLUGIN_KIND, "type")}
        return {**rest, "$ref": f"#/$defs/{kind}"}
    return {key: _with_plugins(value) for key, value in schema.items()}
