"""Plugins: one class each, whose fields are its settings in the spec.

A plugin is a frozen pydantic model. It is found by name through an entry point, or as
``my_space.py:MySpace`` (a file, relative to the spec) or ``my_package:MySpace``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from nasengine.errors import PluginError, SpecError, did_you_mean
from nasengine.plugin_name import PluginName
from nasengine.settings_docs import settings_docs

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema


class Plugin(BaseModel):
    """Base of the contracts: a frozen model whose fields are settings in the spec.

    Attributes
    ----------
    kind
        The section of the spec it serves: ``space``, ``strategy``, ``estimator``, ``task``,
        ``data``. Its entry-point group is ``nasengine.<kind>s`` (``nasengine.data``).
    extra
        The extra to install when an import of the plugin fails, as in
        ``pip install 'nasengine[nni]'``; empty when it needs none.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
    )

    kind: ClassVar[str] = ""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe every setting by the docstring under it."""
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)["properties"]
        for name, about in settings_docs(cls).items():
            described[cls.model_fields[name].alias or name].setdefault("description", about)
        return schema

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the class's own docstring."""
        return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]


P = TypeVar("P", bound=Plugin)


def changed(model: BaseModel) -> set[str]:
    """Return the settings that are given and are not the default.

    A resolved spec gives every setting: what is refused beside another setting is refused only
    where it says something.
    """
    fields = type(model).model_fields
    return {
        name
        for name in model.model_fields_set
        if getattr(model, name) != fields[name].get_default(call_default_factory=True)
    }


def group_of(kind: str) -> str:
    """Return the entry-point group of a kind of plugin."""
    plurals = {"strategy": "strategies", "data": "data"}
    return f"nasengine.{plurals.get(kind, kind + 's')}"


@cache
def installed(kind: str) -> Mapping[str, EntryPoint]:
    """Return the installed plugins of a kind by name, without importing them.

    Raises
    ------
    PluginError
        If two distributions claim the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group_of(kind)), key=lambda point: point.name):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise PluginError(
                f"two installed packages offer the {kind} {point.name!r}: "
                f"{other.value} and {point.value}; uninstall one of them"
            )
        found[point.name] = point
    return found


def load_class(contract: type[P], name: str, folder: Path | None = None) -> type[P]:
    """Find a plugin's class.

    Parameters
    ----------
    contract
        What it must be: `SearchSpace`, `Strategy`, ...; `Plugin` for any of them.
    name
        An installed plugin's name, ``file.py:Class`` or ``package.module:Class``.
    folder
        Where a relative file is looked for: the spec's folder.

    Raises
    ------
    PluginError
        If it is unknown, cannot be imported, or does not keep the contract.
    """
    kind = contract.kind
    what = f"{kind} {name!r}".strip()
    own = PluginName.parse(name)
    if own.is_own:
        source = own.source
        module = _load_file(source, folder) if own.is_file else _import(source, what)
        found = getattr(module, own.attribute, None)
        if found is None:
            classes = [
                key
                for key, value in vars(module).items()
                if _keeps(value, contract) and not inspect.isabstract(value)
            ]
            near = did_you_mean(own.attribute, classes)
            raise PluginError(f"{source} has no {own.attribute!r}; {near}")
    else:
        point = installed(kind).get(name)
        if name.endswith(".py"):
            raise PluginError(_without_class(contract, name, folder))
        if point is None:
            raise PluginError(
                f"unknown {kind} {name!r}; {did_you_mean(name, installed(kind))}; "
                f"or 'my_file.py:MyClass'"
            )
        found = getattr(_import(point.module, what), point.attr)
    if not _keeps(found, contract):
        raise PluginError(f"{what} is not a subclass of nasengine.{contract.__name__}")
    return found  # type: ignore[no-any-return]


def _without_class(contract: type[Plugin], name: str, folder: Path | None) -> str:
    """Say which class a file's name lacks, from the file's text: nothing in it runs."""
    path = ((folder or Path()) / name).resolve()
    if not path.is_file():
        return f"no such file: {path}"
    try:
        found = _classes(path.read_text(encoding="utf-8"), contract.__name__)
    except (OSError, ValueError, SyntaxError, RecursionError):
        found = []
    wanted = " or ".join(repr(f"{name}:{cls}") for cls in found) or repr(f"{name}:MyClass")
    return f"{name!r} names a file alone; its class is needed too, as in {wanted}"


def _classes(source: str, contract: str) -> list[str]:
    """Return a source's classes that have the contract's name among their bases' names."""
    import ast

    kept = {contract}
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if bases & kept:
                kept.add(node.name)
                found.append(node.name)
    return found


def _keeps(value: object, contract: type[Plugin]) -> bool:
    return isinstance(value, type) and issubclass(value, contract) and value is not contract


def _import(module: str, what: str) -> ModuleType:
    if not all(part.isidentifier() for part in module.split(".")):
        raise PluginError(f"{what}: {module!r} is neither a .py file nor a module's name")
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # A module of the user's may raise anything.
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{what} cannot be imported: {reason}") from error


class _Uncached(SourceFileLoader):
    """Compiles the source that is there: kept bytecode is told apart by size and second alone."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(source: str, folder: Path | None) -> ModuleType:
    path = ((folder or Path()) / source).resolve()
    if not path.is_file():
        raise PluginError(f"no such file: {path}")
    try:  # Its content is in the module's name: in a notebook, a file that was edited is new.
        known = str(path).encode() + b"\0" + path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error.strerror}") from error
    name = f"nasengine_file_{path.stem}_{hashlib.sha256(known).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Uncached(name, str(path))
    specification = importlib.util.spec_from_file_location(name, path, loader=loader)
    if specification is None or specification.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        trace = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in trace if frame.f_code.co_filename == str(path)]
        line = f", line {lines[0]}" if lines else ""
        raise PluginError(f"{path}{line}: {type(error).__name__}: {error}") from error
    return module


def build(
    contract: type[P], settings: Mapping[str, Any], *, where: str, folder: Path | None = None
) -> P:
    """Make a plugin from its table in the spec.

    Parameters
    ----------
    contract
        What it must be.
    settings
        The table: ``name`` and the plugin's own settings.
    where
        The key path of the table, for errors: ``space``, ``estimators.iou``.
    folder
        What relative paths are relative to: the spec's folder.

    Raises
    ------
    PluginError
        If there is no such plugin.
    SpecError
        If its settings are wrong; all of them at once.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise SpecError(_without_name(contract, settings, where))
    try:
        cls = load_class(contract, name, folder)
    except PluginError as error:
        # Estimators are named by their key, so that a mistyped `name` looks like a plain setting.
        mistyped = "".join(f"\n{line}" for line in _mistyped_name(settings, where))
        raise PluginError(f"{where}.name: {error}{mistyped}") from error
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise PluginError(f"{where}.name: {name!r} does not define {missing}")
    rest = {key: value for key, value in settings.items() if key != "name"}
    try:
        return cls.model_validate(_frozen(rest), context={"folder": folder, "where": where})
    except ValidationError as error:
        raise SpecError("\n".join(explain(error, cls, where))) from error


def _without_name(contract: type[Plugin], settings: Mapping[str, Any], where: str) -> str:
    names = ", ".join(installed(contract.kind))
    missing = f"{where}.name: the {contract.kind}'s name is missing; one of: {names}"
    return "\n".join([*_mistyped_name(settings, where), missing])


def _mistyped_name(settings: Mapping[str, Any], where: str) -> list[str]:
    close = get_close_matches("name", [key for key in settings if key != "name"], n=1, cutoff=0.6)
    return [f"{where}.{key}: unknown key; did you mean 'name'?" for key in close]


def _frozen(value: Any) -> Any:
    """Turn TOML's arrays into tuples, which strict frozen models take."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def explain(error: ValidationError, model: type[BaseModel], where: str) -> list[str]:
    """Turn pydantic's errors into lines with the key's path and the nearest name.

    Examples
    --------
    >>> class Example(Plugin):
    ...     width: int = 64
    >>> try:
    ...     Example.model_validate({"widht": 3})
    ... except ValidationError as error:
    ...     print(*explain(error, Example, "space"))
    space.widht: unknown key; did you mean 'width'? Allowed: width
    """
    lines = []
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, _Wrapped):
            lines.append(str(cause.error))
            continue
        path = ".".join([where, *_names(problem["loc"], model)]).strip(".")
        if problem["type"] == "extra_forbidden":
            allowed = fields_at(model, problem["loc"][:-1])
            lines.append(f"{path}: unknown key; {did_you_mean(str(problem['loc'][-1]), allowed)}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: missing{_elsewhere(problem, model)}")
        elif problem["type"] in ("dict_type", "model_type"):
            lines.append(f"{path}: a table is needed; got {problem['input']!r:.200}")
        elif problem["type"] == "frozen_instance":
            lines.append(
                f"{where}: {model.__name__} sets {path.removeprefix(f'{where}.')} itself; a "
                f"plugin's settings are fields of its class, such as `width: int = 8`, and it "
                f"needs no __init__"
            )
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = _got(problem["input"], message if cause is not None and path == where else "")
            if problem["type"] in ("tuple_type", "list_type"):
                message = "a list is needed, in [ and ]"
            _add(lines, path, message[:1].lower() + message[1:], got)
    return lines


def _add(lines: list[str], path: str, said: str, got: str) -> None:
    """Add what is wrong with a value: once, also where it may be of one type or another."""
    if got and lines and lines[-1].startswith(f"{path}: ") and lines[-1].endswith(got):
        lines[-1] = f"{lines[-1].removesuffix(got)}, or {said}{got}"
    else:
        lines.append(f"{path}: {said}{got}")


def _got(given: Any, of_table: str) -> str:
    """Say what was given: of a table, the keys that what is said of it names."""
    if not (of_table and isinstance(given, Mapping)):
        return f"; got {given!r:.200}"
    words = set(re.findall(r"\w+", of_table))
    named = [f"{key} = {value!r:.100}" for key, value in given.items() if key in words]
    return f"; got {', '.join(named)}" if named else ""


def _elsewhere(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Say that a missing key stands in a table above it, which TOML takes it to be part of."""
    *place, key = problem["loc"]
    if not isinstance(problem["input"], Mapping) or key == "name":
        return ""
    for table, held in problem["input"].items():
        if isinstance(held, Mapping) and key in held and key not in fields_at(model, [table]):
            inside = ".".join(str(part) for part in (*place, table))
            return f"; {key} stands in the table [{inside}]: what follows its line is part of it"
    return ""


def _names(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Drop what pydantic adds to a location for the members of a union."""
    names: list[str] = []
    for part in location:
        text = str(part)
        added = "[" in text or text in {"int", "float", "str", "bool", "none", "is_instance"}
        if not added or text in fields_at(model, names):
            names.append(text)
    return names


def fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys allowed at a place inside a model, as far as its annotations tell."""
    current: Any = model
    for part in location:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue
        annotation = fields[part].annotation
        models = [
            a for a in _inside(annotation) if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        current = models[0] if models else None
    fields = getattr(current, "model_fields", {})
    return sorted(field.alias or name for name, field in fields.items())


def _inside(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(found for a in arguments for found in _inside(a))]


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, (str, Path)):
        raise ValueError("a path, as text, is needed")
    if "\0" in str(value):
        raise ValueError("a path cannot hold a NUL character")
    folder = (info.context or {}).get("folder")
    path = Path(value).expanduser()
    return path if folder is None or path.is_absolute() else Path(folder) / path


SpecPath = Annotated[Path, BeforeValidator(_resolve)]
"""A path setting: relative ones are relative to the spec's folder."""


PLUGIN_KIND = "x-nasengine-plugin"
"""The key that marks, in a JSON Schema, where a plugin of some kind stands."""


class Nested:
    """Annotation for a setting that is itself a plugin, given as a table with its name.

    Examples
    --------
    ``data: Annotated[DataSource, Nested(DataSource)]``
    """

    def __init__(self, contract: type[Plugin]) -> None:
        self.contract = contract

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Build the plugin from its table before pydantic sees it."""
        from pydantic_core import core_schema

        def make(value: Any, info: core_schema.ValidationInfo) -> Any:
            if isinstance(value, self.contract):
                return value
            context = info.context or {}
            where = ".".join(filter(None, [context.get("where", ""), info.field_name or ""]))
            if not isinstance(value, Mapping):
                raise ValueError("a table with a name is needed, such as { name = ... }")
            try:
                return build(self.contract, value, where=where, folder=context.get("folder"))
            except (SpecError, PluginError) as error:
                raise _Wrapped(error) from error

        return core_schema.with_info_before_validator_function(
            make, core_schema.is_instance_schema(self.contract)
        )

    def __get_pydantic_json_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """Name the kind; `nasengine schema` puts the list of such plugins in its place."""
        return {"type": "object", PLUGIN_KIND: self.contract.kind}


class _Wrapped(ValueError):
    """Carries our own error through pydantic; `explain` unpacks it."""

    def __init__(self, error: SpecError | PluginError) -> None:
        super().__init__(str(error))
        self.error = error
