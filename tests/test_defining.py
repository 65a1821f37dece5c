"""A mistake in a space's `define` is one line: class, file, line, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from nasengine import SearchSpace, SpaceError, SpaceGraph, Zero
from nasengine.errors import PluginError
from nasengine.plugin import explain
from nasengine.testing.stubs import tiny_search


def conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 1)


def space_of(wire: Callable[[Any], object]) -> SearchSpace:
    class Mistaken(SearchSpace):
        def define(self, graph: SpaceGraph) -> None:
            graph.output(wire(graph))  # type: ignore[arg-type]

    return Mistaken()


TWO = {"a": conv, "b": lambda i, o: nn.Conv2d(i, o, 3, padding=1)}

MISTAKES: dict[str, tuple[Callable[[Any], object], str]] = {
    "choices as a list": (
        lambda g: g.slot("s", g.input(3), [conv, conv], out=8),
        "slot 's': choices are factories by name, such as {'conv': conv}; got a list",
    ),
    "a method without the graph": (
        lambda g: slot("s", g.input(3), TWO),  # type: ignore[name-defined]  # noqa: F821
        "NameError: name 'slot' is not defined; did you mean graph.slot?",
    ),
    "an unknown argument": (
        lambda g: g.slot("s", g.input(3), TWO, channels=8),
        "'channels'; graph.slot takes name, sources, choices, out, shares, baselines",
    ),
    "no choices of a width": (
        lambda g: g.width("w"),
        "'options'; graph.width takes name, options",
    ),
    "a width without its graph": (
        lambda g: g.operation("o", g.input(3), conv, out=width(8, 16)),  # noqa: F821
        "name 'width' is not defined; did you mean graph.width?",
    ),
    "an unknown method": (
        lambda g: g.slots_("s"),
        "no attribute 'slots_'; did you mean 'slot'? Allowed: add, concat, input",
    ),
    "a sum without a name": (
        lambda g: g.add(g.slot("s", g.input(3), TWO), "s"),
        "add: a name comes first, as text; got the node 's'; such as graph.add(\"add_1\", ...)",
    ),
    "a source that is none": (
        lambda g: g.slot("s", 3, TWO),
        "what is read is a node, the name of one, or a list of these; got int 3",
    ),
    "several sources that are no list": (
        lambda g: g.slot("s", g.input(3), g.slot("t", "input", TWO), TWO),
        "slot 's': choices are factories by name, such as {'conv': conv}; got the node 't'; "
        "several nodes are read as a list",
    ),
    "channels as text": (
        lambda g: g.slot("s", g.input(3), TWO, out="8"),
        "node 's': channels are a whole number, or a width by graph.width; got str '8'",
    ),
    "a module for a factory": (
        lambda g: g.slot("s", g.input(3), {"a": conv, "b": nn.Conv2d(3, 8, 1)}, out=8),
        "slot 's', candidate 'b': a factory is needed, which makes a new module from (channels in, "
        "channels out); got a Conv2d that is built; such as lambda i, o: nn.Conv2d(...)",
    ),
    "no factory": (
        lambda g: g.operation("o", g.input(3), None),
        "operation 'o': a factory is needed",
    ),
    "a name that is none": (
        lambda g: g.slot("s", g.input(3), {1: conv}),
        "slot 's': choices: a name is text; got int 1",
    ),
    "nodes that are summed": (
        lambda g: g.slot("s", g.input(3), TWO) + g.slot("t", "s", TWO),
        "'Node' and 'Node'; nodes are wired, not computed with: graph.add sums them",
    ),
    "a module called on a node": (
        lambda g: nn.ReLU()(g.slot("s", g.input(3), TWO)),
        "must be Tensor, not Node; nodes are wired, not computed with",
    ),
    "an error of its own": (lambda _: {}["k"], "KeyError: 'k'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_class_file_line_and_reason(mistake: str) -> None:
    wire, told = MISTAKES[mistake]
    with pytest.raises(SpaceError) as caught:
        _ = space_of(wire).decisions
    line = wire.__code__.co_firstlineno
    text = str(caught.value)
    assert text.startswith("Mistaken.define (") and told in text
    assert f"({Path(__file__)}, line {line})" in text
    assert "\n" not in text


def test_an_error_of_another_kind_passes_as_it_is() -> None:
    def missing(_: SpaceGraph) -> None:
        raise PluginError("an extra is not installed")

    with pytest.raises(PluginError, match=r"^an extra is not installed$"):
        _ = space_of(missing).graph


def test_zero_itself_is_a_factory() -> None:
    def wire(graph: SpaceGraph) -> object:
        x = graph.operation("stem", graph.input(3), conv, out=4)
        return graph.add("sum", [x, graph.slot("s", x, {"conv": conv, "none": Zero})])

    space = space_of(wire)
    assert tiny_search(space).shapes.out["s"] == (4, 16, 16)
    keys = {space.key(space.architecture({"s": choice})) for choice in ("conv", "none")}
    assert len(keys) == 2


def test_zero_where_channels_change_says_so() -> None:
    space = space_of(lambda g: g.slot("s", g.input(3), {"conv": conv, "none": Zero}, out=8))
    with pytest.raises(SpaceError, match="slot 's', candidate 'none': Zero keeps its input's"):
        space.shapes((3, 8, 8))


def test_settings_that_an_init_sets_are_said_to_be_fields() -> None:
    class Own(SearchSpace):
        def __init__(self, width: int = 4) -> None:
            self.width = width

        def define(self, graph: SpaceGraph) -> None:
            raise NotImplementedError

    with pytest.raises(ValidationError) as caught:
        Own.model_validate({})
    (told,) = explain(caught.value, Own, "space")
    assert told.startswith("space: Own sets width itself; a plugin's settings are fields")
