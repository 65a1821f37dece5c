"""The commands that tell what there is: list and schema. They import no torch."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from nasengine.errors import InputError, PluginError, did_you_mean
from nasengine.estimator import Estimator
from nasengine.plugin import PLUGIN_KIND, Plugin, installed, load_class
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
    """List the installed plugins: all in a line each, those of a kind or a name with settings."""
    wanted = options.kind_or_name
    kinds = [wanted] if wanted in CONTRACTS else list(CONTRACTS)
    whole = bool(wanted) or options.json
    listed = {kind: dict(_plugins(CONTRACTS[kind], whole)) for kind in kinds}
    if wanted and wanted not in CONTRACTS:
        listed = _named(listed, wanted)
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    for kind, plugins in listed.items():
        print(kind)
        for name, about in plugins.items():
            _print_wrapped(f"  {name:18} ", about["summary"])
            for setting, told in about.get("settings", {}).items():
                _print_wrapped(f"    {setting} = {told['default']}  ", told["about"])
    if not wanted:
        print("settings: nasengine list NAME, or a whole kind: nasengine list strategies")
    return 0


def _named(listed: dict[str, dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return the plugins of one name.

    Raises
    ------
    InputError
        If there is neither a plugin nor a kind of that name.
    """
    found = {kind: {name: plugins[name]} for kind, plugins in listed.items() if name in plugins}
    if not found:
        known = [*CONTRACTS, *(plugin for plugins in listed.values() for plugin in plugins)]
        raise InputError(f"list: no plugin or kind {name!r}; {did_you_mean(name, known)}")
    return found


def _print_wrapped(head: str, text: str) -> None:
    """Print text behind its head, as wide as the terminal; further lines stand further in."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    print(
        textwrap.fill(head + text, max(width, 40), subsequent_indent=indent, break_on_hyphens=False)
    )


def _plugins(contract: type[Plugin], whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the installed plugins: their summaries, and with them their settings."""
    for name, cls in _classes(contract):
        about: dict[str, Any] = {"summary": cls.summary()}
        yield name, {**about, "settings": _settings(cls)} if whole else about


def _classes(contract: type[Plugin]) -> Iterator[tuple[str, type[Plugin]]]:
    """Yield the installed plugins; one that cannot be imported is told, and hides no other."""
    for name in installed(contract.kind):
        try:
            yield name, load_class(contract, name)
        except PluginError as error:
            print(f"warning: {error}", file=sys.stderr)


def _settings(cls: type[BaseModel], prefix: str = "") -> dict[str, dict[str, str]]:
    """Return what each setting is by default and means; those of a table by their paths."""
    found: dict[str, dict[str, str]] = {}
    docs = settings_docs(cls)
    for name, field in cls.model_fields.items():
        path = prefix + (field.alias or name)
        needed = field.is_required()
        default = None if needed else field.get_default(call_default_factory=True)
        about = " ".join(docs.get(name, "").split())
        if isinstance(default, BaseModel) and not isinstance(default, Plugin):
            found[path] = {"default": "{ ... }", "about": about}
            found |= _settings(type(default), f"{path}.")
        else:
            found[path] = {"default": "(needed)" if needed else _toml(default), "about": about}
    return found


def _toml(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, Plugin):
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
    for name, cls in _classes(contract):
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
