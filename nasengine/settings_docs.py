"""What the docstrings under a plugin's settings say, read when somebody asks.

pydantic would read them as each class is made, which is half of the time that the command line
takes to list the plugins.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import sys
import textwrap
from itertools import pairwise

from pydantic import BaseModel


def settings_docs(cls: type[BaseModel]) -> dict[str, str]:
    """Return the description of every setting that has one: of its field, or its docstring.

    Examples
    --------
    >>> from nasengine.task import DataSource
    >>> settings_docs(DataSource)
    {}
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _under_fields(base)
    given = {name: f.description for name, f in cls.model_fields.items() if f.description}
    return {name: text for name, text in (found | given).items() if name in cls.model_fields}


def _under_fields(cls: type) -> dict[str, str]:
    """Return the docstrings that stand under the fields that a class itself defines."""
    found = {}
    body = _definition(cls)
    for statement, following in pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return found


def _definition(cls: type) -> list[ast.stmt]:
    """Return the statements of a class, from its source; none where there is no source."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    lines = linecache.getlines(path) if path else []
    for number, line in enumerate(lines):
        head = re.match(rf"(\s*)class {re.escape(cls.__name__)}\b", line)
        if head is None:
            continue
        text = textwrap.dedent("".join([line, *_indented(lines[number + 1 :], len(head[1]))]))
        try:
            found = ast.parse(text).body[0]
        except SyntaxError:
            continue
        if isinstance(found, ast.ClassDef):
            return found.body
    return []


def _indented(lines: list[str], depth: int) -> list[str]:
    """Return the lines up to the first that is not further in, but for the end of a bracket."""
    for number, line in enumerate(lines):
        inner = len(line) - len(line.lstrip())
        if line.strip() and inner <= depth and not line.lstrip().startswith((")", "]")):
            return lines[:number]
    return lines
