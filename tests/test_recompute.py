"""Slots computed again give the same gradients, and a step fits its budget."""

import copy
from dataclasses import replace

import pytest
import torch
from test_fusion import Fused
from torch import nn

from nasengine.errors import SpecError
from nasengine.passes import Precision, frozen, prepare, recompute_slots
from nasengine.passes.memory import SlotMemory, StepMemory, plan, step_memory
from nasengine.space import SearchSpace
from nasengine.strategies.darts import Darts
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.strategies.memory_plan import choose
from nasengine.supernet import Mixture, Supernet
from nasengine.testing.stubs import TinySpace, tiny_search

light_sdi = pytest.importorskip("nasengine.spaces.light_sdi")


def supernet_of(space, dtype=torch.float64):
    torch.manual_seed(0)
    return prepare(Supernet(space.graph).to(dtype))


def gradients(supernet, alphas, x, run):
    mixtures = {n: Mixture(torch.softmax(a, 0), positive=True) for n, a in alphas.items()}
    run.run(supernet, x, mixtures).square().mean().backward()
    found = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
    return found | {name: alpha.grad for name, alpha in alphas.items()}


@pytest.mark.parametrize("names", [None, ("encoder_2", "decoder_4"), ()])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_and_statistics_stay(names, precision):
    dtype = torch.float64 if precision == "fp32" else torch.float32
    plain = supernet_of(light_sdi.LightSDI(width=2), dtype)
    again = copy.deepcopy(plain)
    assert recompute_slots(again, names) == (9 if names is None else len(names))
    assert list(plain.state_dict()) == list(again.state_dict())
    x = torch.randn(2, 3, 16, 16, dtype=dtype)
    found = []
    for supernet in (plain, again):
        alphas = {n: torch.zeros(5, dtype=dtype).requires_grad_() for n in supernet.decisions}
        found.append(gradients(supernet, alphas, x, Precision(precision, "cpu")))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_frozen_weights_may_be_recomputed():
    again = supernet_of(TinySpace())
    recompute_slots(again)
    alphas = {n: torch.zeros(2).double().requires_grad_() for n in again.decisions}
    with frozen(again.parameters()):
        found = gradients(again, alphas, torch.randn(2, 3, 8, 8).double(), Precision("fp32", "cpu"))
    assert set(found) == set(alphas)


def test_evaluation_recomputes_nothing():
    supernet = supernet_of(TinySpace())
    x = torch.randn(2, 3, 8, 8).double()
    mixtures = {n: Mixture(torch.ones(2).double()) for n in supernet.decisions}
    expected = supernet.eval()(x, mixtures)
    recompute_slots(supernet)
    assert torch.equal(supernet(x, mixtures), expected)


def kept_bytes(supernet, shape, precision):
    """Count what a real forward pass keeps, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    own |= {b.untyped_storage().data_ptr() for b in supernet.buffers()}
    kept, held = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    mixtures = {
        n: Mixture(torch.ones(len(c), requires_grad=True), positive=True)
        for n, c in supernet.decisions.items()
    }
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        precision.run(supernet, torch.randn(shape), mixtures)
    return sum(kept.values())


@pytest.mark.parametrize(
    "space", [light_sdi.LightSDI(width=4), Fused(width=24)], ids=["sdi", "fused"]
)
@pytest.mark.parametrize(
    "run",
    [
        Precision("fp32", "cpu"),
        Precision("fp32", "cpu", sparing=True),
        Precision("bf16", "cpu"),
    ],
    ids=["fp32", "sparing", "bf16"],
)
def test_what_is_counted_is_what_a_step_keeps(run, space):
    shape, graph = (2, 3, 32, 32), space.graph
    memory = step_memory(lambda: Supernet(graph), shape, run, optimiser_states=1)
    supernet = supernet_of(space, torch.float32)
    weights = sum(p.numel() * 4 for p in supernet.parameters())
    buffers = sum(b.numel() * b.element_size() for b in supernet.buffers())
    in_slots = sum(slot.gradients for slot in memory.slots.values())
    counted = sum(slot.kept for slot in memory.slots.values())
    counted += memory.fixed - 2 * weights - buffers - (weights - in_slots)
    assert counted == pytest.approx(kept_bytes(supernet, shape, run), rel=0.02)
    assert in_slots == sum(
        p.numel() * 4
        for name, p in supernet.named_parameters()
        if not name.startswith("network.head")
    )


MEMORY = StepMemory(100, {"a": SlotMemory(80, 1), "b": SlotMemory(50, 2)}, 10)


def test_as_few_slots_as_needed_are_recomputed():
    assert MEMORY.peak() == 242
    assert plan(MEMORY, 300, where="memory").recomputed == ()
    found = plan(MEMORY, 241, where="memory")
    assert (found.recomputed, found.peak, found.without) == (("a",), 193, 242)
    assert "193 B instead of 242 B: 1 slots" in found.text()


def test_a_budget_that_nothing_meets_names_the_least():
    with pytest.raises(SpecError, match=r"strategy\.memory: 50 B is not enough.* 193 B"):
        plan(MEMORY, 50, where="strategy.memory")


def test_a_search_keeps_its_budget_and_finds_the_same(tmp_path):
    alphas = []
    for name, memory in (("free", None), ("tight", "60 kB")):
        folder = tmp_path / name
        folder.mkdir()
        search = tiny_search(folder=folder)
        settings = Darts(iterations=6, arch_every=2, memory=memory, precision="fp32")
        if memory is not None:
            with pytest.raises(SpecError, match=r"strategy\.memory"):
                settings.model_copy(update={"memory": "1 kB"}).check(search)
            least = _least(settings, search)
            settings = settings.model_copy(update={"memory": f"{least} B"})
            settings.check(search)
        job = GradientSearch(settings, search)
        alphas.append(job.run().alphas)
        recomputed = [type(m).__name__ for m in job.steps.supernet.modules()]
        assert ("RecomputedOperation" in recomputed) == (memory is not None)
    torch.testing.assert_close(alphas[1], alphas[0], rtol=1e-6, atol=1e-7)


def _least(settings, search):
    memory = step_memory(
        lambda: Supernet(search.space.graph),
        (settings.batch, *search.task.input_shape),
        Precision("fp32", "cpu", sparing=True),
        optimiser_states=1,
    )
    return memory.peak(tuple(memory.slots))


def test_a_budget_in_float32_is_met_by_forgetting_what_batch_norms_give_as_well():
    graph = light_sdi.LightSDI(width=4).graph
    plain, sparing = (
        step_memory(lambda: Supernet(graph), (2, 3, 32, 32), one, optimiser_states=1).peak()
        for one in (Precision("fp32", "cpu"), choose(Darts(precision="fp32", memory="1 GB"), "cpu"))
    )
    assert sparing < 0.9 * plain
    assert choose(Darts(precision="fp32"), "cpu") == Precision("fp32", "cpu")


def test_memory_is_a_size():
    with pytest.raises(SpecError, match=r"strategy\.memory"):
        Darts(memory="5 ms").check(tiny_search())


def test_second_order_has_no_budget():
    with pytest.raises(ValueError, match="memory needs order 1"):
        Darts(order=2, memory="1 GiB")


def test_dropout_is_drawn_once():
    torch.manual_seed(0)
    supernet = supernet_of(TinySpace())
    for part in list(supernet.modules()):
        if isinstance(part, nn.ModuleDict):
            for name in list(part):
                part[name] = nn.Sequential(part[name], nn.Dropout(0.5))
                break
    # The passes before know nothing of the dropout that came after them.
    for part in supernet.modules():
        if hasattr(part, "scaled"):
            part.scaled = {}
    again = copy.deepcopy(supernet)
    recompute_slots(again)
    found = []
    for network in (supernet, again):
        torch.manual_seed(3)
        alphas = {n: torch.zeros(2).double().requires_grad_() for n in network.decisions}
        x = torch.ones(2, 3, 8, 8).double()
        found.append(gradients(network, alphas, x, Precision("fp32", "cpu")))
    torch.testing.assert_close(found[1], found[0])


def test_what_a_forward_pass_counts_is_counted_once():
    def normed(channels_in, channels_out):
        conv = nn.utils.spectral_norm(nn.Conv2d(channels_in, channels_out, 1))
        return nn.Sequential(conv, nn.InstanceNorm2d(channels_out, track_running_stats=True))

    class Normed(SearchSpace):
        """One slot of one block."""

        def define(self, graph):
            graph.output(graph.slot("a", graph.input(3), {"normed": normed}, out=4))

    plain = supernet_of(Normed())
    again = copy.deepcopy(plain)
    recompute_slots(again)
    x, found = torch.randn(2, 3, 8, 8).double(), []
    for supernet in (plain, again):
        alphas = {"a": torch.zeros(1).double().requires_grad_()}
        found.append(gradients(supernet, alphas, x, Precision("fp32", "cpu")))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_without_channels_last_a_step_is_prepared_all_the_same():
    graph, run = light_sdi.LightSDI(width=2).graph, Precision("bf16", "cpu")
    kept = [
        step_memory(lambda: Supernet(graph), (2, 3, 32, 32), one, optimiser_states=1).peak()
        for one in (run, replace(run, channels_last=False), replace(run, prepared=False))
    ]
    assert kept[1] == pytest.approx(kept[0], rel=0.01)
    assert kept[2] > 1.05 * kept[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_is_counted_on_the_device():
    graph, devices = TinySpace().graph, set()

    def build():
        supernet = Supernet(graph)
        devices.update(p.device.type for p in supernet.parameters())
        return supernet

    step_memory(build, (2, 3, 16, 16), Precision("fp32", "cuda"), optimiser_states=1)
    assert devices == {"cuda"}
