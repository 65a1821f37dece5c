"""Wheel, sdist and editable install: each in an environment of its own, with every plugin."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PARTS = ("nasengine", "spaces", "strategies", "estimators")
GROUPS = ("spaces", "strategies", "estimators", "tasks", "data")

REPORT = """
import json, sys
from importlib.metadata import entry_points
import nasengine, nasengine.spaces, nasengine.strategies, nasengine.estimators
groups = {}
for group in sys.argv[1:]:
    points = [p for p in entry_points(group=f"nasengine.{group}") if p.dist.name == "nasengine"]
    groups[group] = {p.name: p.load().__module__ for p in points}
try:
    import spaces
except ImportError:
    spaces = None
print(json.dumps({
    "groups": groups,
    "files": [m.__file__ for m in
              (nasengine, nasengine.spaces, nasengine.strategies, nasengine.estimators)],
    "version": nasengine.__version__,
    "bare": spaces is not None,
}))
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing behind in the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in (*PARTS, "tests", "docs", "examples"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """The folder with the sdist, and the wheel built from it."""
    out = checkout / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=checkout)
    return out


def environment(folder: Path) -> Path:
    """Make an environment that sees the packages of this one, but not this nasengine.

    A .pth file puts this environment's packages last: dependencies are found there without being
    installed again, and nasengine in the new environment comes first.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent
    ).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: object, cwd: Path) -> None:
    # --ignore-installed: the nasengine of this environment is seen through the .pth file.
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd)


def declared() -> dict[str, set[str]]:
    """Return the entry points that pyproject.toml promises."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {group: set(project["entry-points"][f"nasengine.{group}"]) for group in GROUPS}


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_every_plugin_is_there(kind: str, checkout: Path, built: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment")
    what: dict[str, tuple[object, ...]] = {
        "wheel": tuple(built.glob("*.whl")),
        "sdist": tuple(built.glob("*.tar.gz")),
        "editable": ("--editable", checkout),
    }
    install(python, *what[kind], cwd=tmp_path)
    report = json.loads(run(python, "-c", REPORT, *GROUPS, cwd=tmp_path))
    assert {group: set(found) for group, found in report["groups"].items()} == declared()
    assert all(
        module.startswith("nasengine.")
        for found in report["groups"].values()
        for module in found.values()
    )
    place = checkout if kind == "editable" else tmp_path / "environment"
    assert all(Path(file).is_relative_to(place) for file in report["files"]), report["files"]
    assert not report["bare"], "the folders at the root can be imported by their bare names"
    listed = run(python.parent / "nasengine", "list", cwd=tmp_path)
    missing = [name for names in declared().values() for name in names if name not in listed]
    assert missing == []
    for name in ("my_space", "device_table"):
        told = run(python.parent / "nasengine", "example", name, cwd=tmp_path)
        spec = told.splitlines()[-1].removeprefix("nasengine run ")
        run(python.parent / "nasengine", "check", spec, cwd=tmp_path)


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "nasengine/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"nasengine"}
    examples = {f"nasengine/{p.relative_to(ROOT)}" for p in (ROOT / "examples").rglob("*.*")}
    assert {name for name in examples if not name.endswith(".pyc")} <= set(names)
    for part in ("spaces", "strategies", "estimators"):
        sources = {path.name for path in (ROOT / part).glob("*.py")}
        packed = {name.rpartition("/")[2] for name in names if f"nasengine/{part}/" in name}
        assert packed == sources
    files = [path for path in (ROOT / "nasengine").rglob("*.*") if path.suffix != ".pyc"]
    sources = {str(path.relative_to(ROOT)) for path in files}
    assert sources <= set(names), "missing in [tool.setuptools] packages or package-data"


def test_the_sdist_holds_what_a_packager_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "tests/conftest.py"} <= names
