"""Every example in a docstring runs.

pytest's own --doctest-modules would import the folders at the root by their bare names, and so
make a second copy of every class.
"""

import doctest
import importlib
import pkgutil
import warnings

import pytest

PACKAGES = ("nasengine", "nasengine.spaces", "nasengine.strategies", "nasengine.estimators")


def modules() -> list[str]:
    """Name every module, wherever its folder is mapped from."""
    found = set()
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found |= {info.name for info in pkgutil.walk_packages(path, f"{package}.")}
    return sorted(found)


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns while it is imported.
        module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=flags)
    assert results.failed == 0, f"see the output above; or python -m doctest -v on {name}"
