"""Samples from anyone's source are held to the contract once, before anything trains on them."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasengine.errors import DataError
from nasengine.reporter import Progress, Reporter
from nasengine.task import Samples, Splits
from nasengine.testing.stubs import TinySegmentation, tiny_search


class Changed(TinySegmentation):
    """A task whose validation samples are spoilt."""

    how: str
    """What is wrong with them."""

    def load(self, seed: int) -> Splits:
        splits = super().load(seed)
        return replace(splits, validation=spoilt(splits.validation, self.how))


def spoilt(samples: Samples, how: str) -> Samples:
    inputs, targets = samples.inputs.clone(), samples.targets.clone()
    changes: dict[str, dict[str, Tensor | tuple[str, ...]]] = {
        "255": {"targets": targets * 255},
        "negative": {"targets": targets.index_fill(0, torch.tensor(1), -1)},
        "float targets": {"targets": targets.float()},
        "double": {"inputs": inputs.double()},
        "nan": {"inputs": inputs.index_fill(0, torch.tensor(1), float("nan"))},
        "names": {"names": samples.names[:-1]},
        "channels": {"inputs": inputs[:, :1]},
        "mask size": {"targets": targets[:, ::2]},
        "empty": {"inputs": inputs[:0], "targets": targets[:0], "names": ()},
    }
    return replace(samples, **changes[how])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("255", "has the target 255; allowed: class indices from 0 to 1"),
        ("negative", "has the target -1; allowed: class indices from 0 to 1"),
        ("float targets", "targets are of torch.float32; allowed: torch.int64"),
        ("double", "inputs are of torch.float64; allowed: torch.float32"),
        ("nan", "has the input nan; allowed: finite values"),
        ("names", "inputs of 3 named samples have the shape (4, 3, 16, 16)"),
        ("channels", "allowed: (4, 3, 16, 16)"),
        ("mask size", "targets of 4 named samples have the shape (4, 8, 16); allowed: (4,) or (4"),
        ("empty", "holds no samples"),
    ],
)
def test_what_breaks_the_contract_is_named(how: str, said: str, tmp_path: Path) -> None:
    search = tiny_search(task=Changed(how=how), folder=tmp_path)
    with pytest.raises(DataError) as caught:
        _ = search.splits
    assert str(caught.value).startswith("the validation split: ")
    assert said in str(caught.value)
    assert not (tmp_path / "data.json").exists()


def test_a_value_is_named_with_its_sample(tmp_path: Path) -> None:
    search = tiny_search(task=Changed(how="negative"), folder=tmp_path)
    name = TinySegmentation().load(search.seed).validation.names[1]
    with pytest.raises(DataError, match=f"'{name}' has the target"):
        _ = search.splits


def test_which_sample_is_in_which_split_is_kept(tmp_path: Path) -> None:
    splits = tiny_search(folder=tmp_path).splits
    with (tmp_path / "splits.csv").open(newline="") as file:
        rows = [(row["split"], row["name"]) for row in csv.DictReader(file)]
    parts = splits.parts.items()
    assert rows == [(split, name) for split, samples in parts for name in samples.names]


def test_samples_are_brought_to_a_device_once(tmp_path: Path) -> None:
    samples = tiny_search(folder=tmp_path).splits.train
    assert samples.on("cpu") is samples
    placed = samples.on("meta")
    assert placed.inputs.is_meta
    assert placed.targets.is_meta
    assert placed.names == samples.names
    assert samples.on("meta") is placed
    assert replace(samples, names=samples.names).on("meta") is not placed


def test_a_batch_is_what_was_asked_for_in_that_order(tmp_path: Path) -> None:
    samples = tiny_search(folder=tmp_path).splits.train
    inputs, targets = samples.batch(torch.tensor([3, 0, 3]))
    assert torch.equal(inputs, samples.inputs[[3, 0, 3]])
    assert torch.equal(targets, samples.targets[[3, 0, 3]])


def test_reading_is_shown_as_work_in_progress(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, object]]] = []

    class Heard(Reporter, Progress):
        @contextmanager
        def progress(self, description: str, total: int, done: int = 0) -> Iterator[Progress]:
            told.append((description, {}))
            yield self

        def advance(self, steps: int = 1, **facts: float | str) -> None:
            told[-1][1].update(facts)

    search = replace(tiny_search(folder=tmp_path), reporter=Heard())
    count = sum(map(len, search.splits.parts.values()))
    assert told == [("reading the data", {"samples": count})]
    assert search.splits is search.splits and len(told) == 1
