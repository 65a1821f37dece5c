"""What every search space must keep, as a pytest class to inherit.

Examples
--------
In a package that offers its own space::

    from nasengine.testing.spaces import SearchSpaceContract

    class TestMySpace(SearchSpaceContract):
        @pytest.fixture
        def space(self):
            return MySpace(width=4)

        @pytest.fixture
        def input_shape(self):
            return 3, 16, 16
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
import subprocess
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import pytest

from nasengine import moves
from nasengine.architecture import Architecture, check_architecture
from nasengine.randomness import stream, torch_seed
from nasengine.settings_docs import settings_docs
from nasengine.space import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from nasengine.supernet import Mixture, Supernet

_SAMPLES = 4

_KEYS_ELSEWHERE = """
import importlib, json, sys
import nasengine.plugin
module, name, settings, file, choices = json.loads(sys.stdin.read())
if file:
    cls = nasengine.plugin.load_class(nasengine.SearchSpace, file + ":" + name)
else:
    cls = getattr(importlib.import_module(module), name)
space = cls.model_validate_json(settings)
print(json.dumps([space.key(space.architecture(row)) for row in choices]))
"""


def copy_weights(supernet: Supernet, network: fx.GraphModule, architecture: Architecture) -> None:
    """Give a network the weights of its candidates and operations in a supernet.

    Where widths are searched, it is a network of the widest, or a path.
    """
    from nasengine.supernet import MixedOperation

    for name, module in network.named_children():
        there = supernet.network.get_submodule(name)
        if isinstance(there, MixedOperation):
            decision = next(
                str(node.kwargs["mixture"]).removeprefix("mix_")
                for node in supernet.network.graph.nodes
                if node.op == "call_module" and node.target == name
            )
            there = there.candidates[architecture[decision]]
        module.load_state_dict(there.state_dict())


def one_hot(space: SearchSpace, architecture: Architecture) -> dict[str, Mixture]:
    """Return the mixtures under which a supernet is one architecture's network."""
    import torch

    from nasengine.supernet import Mixture

    return {
        name: Mixture(torch.tensor([float(choice == architecture[name]) for choice in choices]))
        for name, choices in space.decisions.items()
    }


def at_widths(space: SearchSpace, architecture: Architecture, index: int) -> Architecture:
    """Return an architecture with the choice of that index for every searched width.

    They go from the narrowest to the widest: 0 is the one, -1 the other.
    """
    widths = {width: space.decisions[width][index] for width in space.graph.widths}
    return Architecture({**architecture, **widths})


def _channels(space: SearchSpace, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the channels of all that stands in an architecture's network."""
    from nasengine.canonical import simplify

    graph = space.graph
    left = simplify(graph, architecture)
    return {name: graph.channels_of(name, architecture) for name in left}


def _assert_prepared(plain: nn.Module, inputs: Tensor, *further: Any) -> None:
    """Compare a step and the evaluation of a module with those of its prepared copy."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from nasengine.passes import Precision, prepare

    plain = plain.double().train()
    with torch.no_grad():
        # A ReLU at exactly zero (a norm of a constant channel) has the gradient that rounding says.
        for weight in plain.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    fast = prepare(copy.deepcopy(plain))
    assert _modes(fast) == _modes(plain)
    run = Precision("fp32", "cpu")
    for module in (plain, fast):
        for part in module.modules():
            part.training = part.training and isinstance(part, _BatchNorm)
    steps = []
    for output in (plain(inputs.double(), *further), run.run(fast, inputs.double(), *further)):
        output.square().mean().backward()
        steps.append(output.detach())
    close = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)
    close(steps[1], steps[0])
    found = dict(fast.named_parameters())
    for name, weight in plain.named_parameters():
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        got = found[name].grad
        got = torch.zeros_like(weight) if got is None else got
        close(got, expected, msg=f"{name}: {{}}".format)
    # Of evaluation, not the running means: those take over the biases of convolutions.
    close(run.run(fast.eval(), inputs.double(), *further), plain.eval()(inputs.double(), *further))
    assert list(fast.state_dict()) == list(plain.state_dict())


def _modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


class SearchSpaceContract:
    """Override the fixtures `space` and `input_shape` with small ones."""

    @pytest.fixture
    @abstractmethod
    def space(self) -> SearchSpace:
        """Return the space, as small as its settings allow."""
        raise NotImplementedError("override the fixture `space`")

    @pytest.fixture
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Return (C, H, W) of a small input that the space takes."""
        raise NotImplementedError("override the fixture `input_shape`")

    @pytest.fixture
    def inputs(self, input_shape: tuple[int, ...]) -> Tensor:
        """Return a batch of random inputs: (4, C, H, W)."""
        import torch

        with torch_seed(0, "inputs"):
            return torch.randn(4, *input_shape)

    @pytest.fixture
    def samples(self, space: SearchSpace) -> list[Architecture]:
        """Return some architectures of the space."""
        rng = stream(0, "samples")
        return [moves.sample(space.decisions, rng) for _ in range(_SAMPLES)]

    def test_definition_is_deterministic(self, space: SearchSpace) -> None:
        """Defining twice wires the same nodes, decisions and channels, in the same order."""
        first, second = space.graph, type(space)(**space.model_dump()).graph
        assert first.order == second.order
        assert first.decisions == second.decisions
        assert first.channels == second.channels
        assert [n.inputs for n in first.nodes] == [n.inputs for n in second.nodes]

    def test_settings_are_documented(self, space: SearchSpace) -> None:
        """The class and every setting say what they are, as `nasengine list` shows."""
        assert type(space).summary()
        docs = settings_docs(type(space))
        for name in type(space).model_fields:
            assert docs.get(name), f"{name} has no docstring"

    def test_shapes_are_inferred(self, space: SearchSpace, input_shape: tuple[int, ...]) -> None:
        """Every candidate of every slot takes the input and gives one shape, at all widths."""
        from nasengine.shapes import infer_shapes

        shapes = infer_shapes(space.graph, input_shape)
        assert set(shapes.out) == set(space.graph.order)

    def test_moves_stay_in_the_space(self, space: SearchSpace, samples: list[Architecture]) -> None:
        """Samples, mutants, children and neighbours are architectures of the space."""
        rng = stream(0, "moves")
        for one, other in itertools.pairwise(samples):
            mutant = moves.mutate(one, space.decisions, rng)
            child = moves.cross_over(one, other, rng)
            for found in (one, mutant, child, next(moves.neighbours(one, space.decisions), one)):
                assert check_architecture(found, space.decisions) == found
            assert sum(mutant[name] != one[name] for name in one) <= 1
            assert all(child[name] in (one[name], other[name]) for name in child)

    def test_narrower_networks_are_of_the_same_architectures(
        self, space: SearchSpace, samples: list[Architecture], input_shape: tuple[int, ...]
    ) -> None:
        """Half the `widths`, where there are any, leave all that the architectures say as it is."""
        from nasengine.network import build_network

        def parameters(space: SearchSpace, architecture: Architecture) -> int:
            with torch_seed(0, "weights"):
                network = build_network(space.graph, architecture)
            return sum(p.numel() for p in network.parameters())

        if not any(getattr(space, setting) > 1 for setting in space.widths):
            return
        narrow, end = space.narrowed(0.5), space.graph.order[-1]
        assert narrow.decisions == space.decisions
        assert narrow.references() == space.references()
        assert narrow.shapes(input_shape).out[end] == space.shapes(input_shape).out[end]
        for architecture in samples:
            assert parameters(narrow, architecture) <= parameters(space, architecture)

    def test_networks_have_the_channels_that_are_decided(
        self, space: SearchSpace, samples: list[Architecture], inputs: Tensor
    ) -> None:
        """Each module of a network gives the channels that are declared, or its widths say."""
        from torch.fx.passes.shape_prop import ShapeProp

        from nasengine.network import build_network

        extremes = (at_widths(space, sample, index) for sample in samples for index in (0, -1))
        for architecture in dict.fromkeys((*samples, *extremes)):
            with torch_seed(0, "weights"):
                network = build_network(space.graph, architecture)
            ShapeProp(network).propagate(inputs)
            channels = _channels(space, architecture)
            for node in network.graph.nodes:
                if node.op == "call_module":
                    found = node.meta["tensor_meta"].shape[1]
                    assert found == channels[str(node.target)][-1], node.target

    def test_a_width_tells_networks_apart_by_their_channels(
        self, space: SearchSpace, samples: list[Architecture]
    ) -> None:
        """Networks of other channels have other keys; a width of what is cut off makes none."""
        for one in samples:
            for width in space.graph.widths:
                for choice in space.decisions[width]:
                    other = one.replace(width, choice)
                    same = _channels(space, one) == _channels(space, other)
                    assert (space.key(one) == space.key(other)) is same, (one, width, choice)

    def test_strings_are_read_back(self, space: SearchSpace, samples: list[Architecture]) -> None:
        """Parse is the inverse of format."""
        for architecture in samples:
            assert space.architecture(space.parse(space.format(architecture))) == architecture

    def test_networks_run_and_learn(
        self, space: SearchSpace, samples: list[Architecture], inputs: Tensor
    ) -> None:
        """Samples and references run; their gradients are finite."""
        import torch

        from nasengine.network import build_network
        from nasengine.shapes import infer_shapes

        shape = infer_shapes(space.graph, tuple(inputs.shape[1:])).out[space.graph.order[-1]]
        named = [space.reference(name) for name in space.references()]
        for architecture in (*samples, *named):
            with torch_seed(0, "weights"):
                network = build_network(space.graph, architecture)
            outputs = network(inputs)
            assert tuple(outputs.shape) == (len(inputs), *shape)
            assert torch.isfinite(outputs).all()
            outputs.square().mean().backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert all(torch.isfinite(gradient).all() for gradient in gradients)

    def test_the_supernet_learns(self, space: SearchSpace, inputs: Tensor) -> None:
        """Weights and mixtures get finite gradients; every mixture moves the output."""
        import torch

        from nasengine.supernet import Mixture, Supernet

        with torch_seed(0, "weights"):
            supernet = Supernet(space.graph)
        alphas = {
            name: torch.full((len(choices),), 1 / len(choices), requires_grad=True)
            for name, choices in space.decisions.items()
        }
        mixtures = {name: Mixture(alpha) for name, alpha in alphas.items()}
        supernet(inputs, mixtures).square().mean().backward()
        for name, alpha in alphas.items():
            assert alpha.grad is not None, f"{name} does not reach the output"
            assert torch.isfinite(alpha.grad).all()
            assert alpha.grad.abs().sum() > 0, f"{name} has no gradient"
        for name, weight in supernet.named_parameters():
            assert weight.grad is None or torch.isfinite(weight.grad).all(), name

    def test_a_one_hot_mixture_is_the_network(
        self, space: SearchSpace, samples: list[Architecture], inputs: Tensor
    ) -> None:
        """The supernet under one choice each gives what the derived network gives.

        At other than the widest of searched widths, what a network of the widest gives that is zero
        beyond its widths: a block may make something of what is masked.
        """
        import torch

        from nasengine.network import build_network
        from nasengine.supernet import Supernet, build_path

        with torch_seed(0, "weights"):
            supernet = Supernet(space.graph).eval()
        rows = [(build_path, sample) for sample in samples] if space.graph.widths else []
        rows += [(build_network, at_widths(space, sample, -1)) for sample in samples]
        for build, architecture in rows:
            network = build(space.graph, architecture).eval()
            copy_weights(supernet, network, architecture)
            with torch.no_grad():
                expected = supernet(inputs, one_hot(space, architecture))
                torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)

    def test_prepared_networks_compute_the_same(
        self, space: SearchSpace, samples: list[Architecture], inputs: Tensor
    ) -> None:
        """What makes a step fast changes no output, gradient, buffer or mode.

        Compared in float64; for the gradients, all but batch norms in evaluation, as what draws at
        random may draw otherwise.
        """
        import torch

        from nasengine.network import build_network
        from nasengine.supernet import Mixture, Supernet

        mixtures = {
            name: Mixture(torch.full((len(choices),), 1 / len(choices)).double(), positive=True)
            for name, choices in space.decisions.items()
        }
        with torch_seed(0, "weights"):
            _assert_prepared(Supernet(space.graph), inputs, mixtures)
            for architecture in samples:
                _assert_prepared(build_network(space.graph, architecture), inputs)

    def test_keys_are_the_same_in_another_process(
        self, space: SearchSpace, samples: list[Architecture]
    ) -> None:
        """A resumed run recognises what an earlier process has measured."""
        cls = type(space)
        file = str(getattr(sys.modules[cls.__module__], "__file__", ""))
        loaded = cls.__module__.startswith("nasengine_file_")
        given = (
            cls.__module__,
            cls.__name__,
            space.model_dump_json(),
            file if loaded else "",
            [dict(architecture) for architecture in samples],
        )
        done = subprocess.run(
            [sys.executable, "-c", _KEYS_ELSEWHERE],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            # What the tests import, a test module itself among it, is found there too.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [space.key(architecture) for architecture in samples]

    def test_networks_are_printable_and_exportable(
        self, space: SearchSpace, samples: list[Architecture], inputs: Tensor
    ) -> None:
        """A network's code can be read, and torch.export takes it."""
        import torch

        from nasengine.network import build_network

        network = build_network(space.graph, samples[0]).eval()
        assert "def forward" in network.code
        exported = torch.export.export(network, (inputs,)).module()
        with torch.no_grad():
            torch.testing.assert_close(exported(inputs), network(inputs), rtol=1e-4, atol=1e-5)
