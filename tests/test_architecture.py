"""The floors of the house, and the few lists that nobody changes by accident."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jobs", "pipelines", "schemas", "infotok_core")
FOLDERS = {"benchmarks", "docs", "examples", "tests", *PACKAGES}
FILES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "__pycache__" not in path.parts
]
# Builds of torch for CPUs bring no Triton; nobody imports these without asking for it.
NEEDS_TRITON = {
    "infotok_core.fused_kernels",
    "infotok_core.fast.attention_kernels",
    "infotok_core.fast.conv_kernels",
    "infotok_core.fast.kernels",
    "infotok_core.fast.pixel_kernels",
}
MODULES = [path for path in FILES if path.name not in ("__init__.py", "__main__.py")]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def importable() -> list[str]:
    has_triton = importlib.util.find_spec("triton") is not None
    return [name for name in map(name_of, MODULES) if has_triton or name not in NEEDS_TRITON]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_go_down_the_floors_only():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("schemas/ids.py", "import pipelines.storage"),
        ("schemas/ids.py", "import infotok_core.router"),
        ("infotok_core/router.py", "import schemas.ids"),
        ("infotok_core/router.py", "import pyarrow"),
        ("schemas/ids.py", "import torch"),
        ("pipelines/storage.py", "import jobs.cli"),
    ],
)
def test_an_import_up_the_floors_is_found(tmp_path: Path, module: str, line: str):
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=lambda _, names: _not_python(names)
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / module
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "1 broken" in done.stdout or "2 broken" in done.stdout


def _not_python(names: list[str]) -> set[str]:
    return {name for name in names if "." in name and not name.endswith(".py")}


def test_the_contracts_are_the_three_of_the_house():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert tuple(contracts["root_packages"]) == PACKAGES
    layers, core, schemas = contracts["contracts"]
    assert layers["layers"] == ["jobs", "pipelines", "schemas | infotok_core"]
    assert set(core["forbidden_modules"]) >= {"ray", "pyarrow", "pydantic", "click", "fsspec", "av"}
    assert set(schemas["forbidden_modules"]) >= {"ray", "torch", "fsspec", "av"}


def test_the_tokenizer_can_be_used_without_engine_and_storage():
    modules = [name for name in importable() if name.startswith("infotok_core.")]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{"ray", "pyarrow", "pydantic", "click", "fsspec", "av"}} & set(sys.modules)))
"""
    # Some distributions of torch bring fsspec along; it is not ours to forbid there.
    assert python(code) in ("[]", "['fsspec']")


def test_a_trainer_reads_a_corpus_without_the_engine():
    code = """
import sys
import pipelines.dataset
print(sorted({"ray", "av", "click", "skimage"} & set(sys.modules)))
"""
    assert python(code) == "[]"


def test_every_module_can_be_imported_and_does_nothing_then():
    names = importable()
    code = f"""
import importlib, threading
before = threading.active_count()
for name in {names!r}:
    importlib.import_module(name)
import ray
print(ray.is_initialized(), threading.active_count() - before)
"""
    assert python(code) == "False 0"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_offers(path: Path):
    tree = ast.parse(path.read_text())
    offered = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert len(offered) == 1, "no __all__"
    assert ast.get_docstring(tree), "no docstring"
    defined = _names(tree.body)
    assert set(offered[0]) <= defined
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert public <= set(offered[0]), "public, but not offered"


def _names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
        elif isinstance(node, ast.If | ast.Try):
            names |= _names(node.body)
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_is_short_and_has_one_idea(path: Path):
    assert len(path.read_text().splitlines()) <= 320


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_are_absolute(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.ImportFrom) or node.level == 0


def test_nothing_below_the_jobs_prints():
    printing = re.compile(r"^\s*(print|click\.echo)\(", re.MULTILINE)
    offenders = [
        name_of(path)
        for path in FILES
        if path.relative_to(ROOT).parts[0] != "jobs" and printing.search(path.read_text())
    ]
    assert offenders == []


def test_the_top_level_folders_are_these():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: folders of the one who unpacked it may lie about")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = {path.split("/")[0] for path in listed if "/" in path}
    assert {name for name in found if not name.startswith(".")} == FOLDERS


def test_tests_that_share_fixtures_stay_together(request: pytest.FixtureRequest):
    if not hasattr(request.config, "workerinput"):
        pytest.skip("only where several processes share the tests")
    assert request.node.nodeid.endswith("@tests/test_architecture.py")
