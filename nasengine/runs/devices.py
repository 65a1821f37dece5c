"""The devices of a spec: which there are, and which measure alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nasengine.errors import SpecError


def resolved(asked: str, where: str) -> str:
    """Return the device that a spec's stands for.

    Raises
    ------
    SpecError
        If it is not there.
    """
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    count, (kind, index) = torch.cuda.device_count(), _card(asked)
    if kind == "cuda" and index >= count:
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        found = "" if count else ", and torch finds no CUDA"
        raise SpecError(f"{where}: {asked!r} is asked for{found}; on this machine: {there}")
    return asked


def beside(own: str, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the devices of workers, where the search itself has its own.

    Raises
    ------
    SpecError
        If one is not there or stands twice, or is of another kind than the search's own: what is
        measured on both does not compare.
    """
    where = "execution.devices"
    found = tuple(resolved(device, where) for device in asked)
    if len({_card(device) for device in found}) < len(found):
        raise SpecError(f"{where}: one stands twice: {', '.join(found)}")
    kind, _ = _card(own)
    others = [device for device in found if _card(device)[0] != kind]
    if others:
        raise SpecError(
            f"{where}: {others[0]} beside device {own}: what is measured on both does not compare; "
            f"set device to one of that kind"
        )
    return found


def unlike(devices: Iterable[str]) -> list[str]:
    """Say so where they are cards of several models."""
    import torch

    models = {name: torch.cuda.get_device_name(name) for name in devices if name != "cpu"}
    if len({*models.values()}) < 2:
        return []
    listed = ", ".join(f"{device} is {model}" for device, model in models.items())
    return [f"execution.devices: {listed}: times measured on them do not compare"]


def _card(device: str) -> tuple[str, int]:
    """Return what a device is, however it is written: ``cuda`` is ``cuda:0``."""
    kind, _, index = device.partition(":")
    return kind, int(index or 0)
