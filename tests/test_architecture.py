"""The rules of the tree: who may import whom, who owns which library, and how long a thing may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "msmedcap"

# From the bottom up; a module may import its own row only where SIDEWAYS says so, and rows below it. Longest prefix wins.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("msmedcap.config",),
    ("msmedcap.systems",),
    ("msmedcap.models", "msmedcap.data"),
    ("msmedcap.memory",),
    ("msmedcap.checkpoints", "msmedcap.convert", "msmedcap.hub"),
    ("msmedcap.segmenters",),
    ("msmedcap.explain", "msmedcap.training"),
    ("msmedcap.captioning",),
    ("msmedcap.batch", "msmedcap.segmenting"),
    ("msmedcap.predictor",),
    (
        "msmedcap.training.loop", "msmedcap.training.rows", "msmedcap.training.recipe", "msmedcap.training.kits",
        "msmedcap.training.segmenting", "msmedcap.training.train", "msmedcap.evaluation",
    ),
    ("msmedcap.__main__", "msmedcap.commands", "msmedcap.demo"),
    ("app",),
)
# Modules of one row that may see each other, besides those below one prefix.
SIDEWAYS = {
    ("msmedcap.__main__", "msmedcap.commands"),
    ("msmedcap.__main__", "msmedcap.demo"),
    ("msmedcap.convert", "msmedcap.checkpoints"),
    ("msmedcap.training.recipe", "msmedcap.training.loop"),
    ("msmedcap.training.train", "msmedcap.training.loop"),
    ("msmedcap.training.train", "msmedcap.training.kits"),
    ("msmedcap.training.train", "msmedcap.training.segmenting"),
    ("msmedcap.training.segmenting", "msmedcap.training.loop"),
    ("msmedcap.training.recipe", "msmedcap.training.rows"),
    ("msmedcap.training.rows", "msmedcap.training.loop"),
}

OWNERS: dict[str, tuple[str, ...]] = {
    "gradio": ("msmedcap.demo",),
    "pydicom": ("msmedcap.data.scans",),
    "highdicom": ("msmedcap.data.scans.segments",),
    "segment_anything": ("msmedcap.models.sam", "msmedcap.models.segmenter"),
    "accelerate": ("msmedcap.training.loop",),
    "sqlalchemy": ("msmedcap.demo.store", "msmedcap.demo.store_schema"),
    "webdataset": ("msmedcap.data.shards",),
    "pyarrow": ("msmedcap.data.sets.parquet",),
    "bitsandbytes": ("msmedcap.models.opt_loading",),
    "surface_distance": ("msmedcap.evaluation.overlap",),
    "pycocoevalcap": ("msmedcap.evaluation.coco_toolkit",),
    "transformers": ("msmedcap.models", "msmedcap.evaluation.neural"),
    "matplotlib": ("msmedcap.demo.viewer.encoding", "msmedcap.evaluation"),
}
LONGEST_MODULE, LONGEST_FUNCTION = 350, 60


def _modules() -> dict[str, Path]:
    files = [*sorted(PACKAGE.rglob("*.py")), *(p for p in [ROOT / "app.py"] if p.exists())]
    names = {}
    for file in files:
        parts = list(file.relative_to(ROOT).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _nodes(tree: ast.AST, *, deep: bool) -> Iterator[ast.AST]:
    """The nodes that run: all of them, or (not ``deep``) those that run on import; never what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt) and _for_types(node):
            continue
        if not deep and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield node
        yield from _nodes(node, deep=deep)


def _imports(name: str, *, deep: bool = True) -> set[str]:
    """The modules that ``name`` imports, ``from x import y`` as ``x.y`` where that is a module of ours, else ``x``."""
    found: set[str] = set()
    package = MODULES[name].name == "__init__.py"
    for node in _nodes(TREES[name], deep=deep):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                base = ".".join([*parts[: len(parts) - node.level + package], *([base] if base else [])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base)
    return found - {name}


def _layer(name: str) -> tuple[int, str]:
    """The row of ``name`` and the prefix that placed it there; the package itself may see everything it exports."""
    matches = [(p, i) for i, row in enumerate(LAYERS) for p in row if name == p or name.startswith(p + ".")]
    if not matches:
        raise AssertionError(f"{name} has no layer; add it to LAYERS")
    prefix, row = max(matches, key=lambda match: len(match[0]))
    return row, prefix


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize("name", [n for n in MODULES if n != "msmedcap"])
def test_imports_go_down_only(name: str) -> None:
    row, prefix = _layer(name)
    for target in sorted(_imports(name)):
        if target not in MODULES or target == "msmedcap":
            continue
        target_row, target_prefix = _layer(target)
        same = target_row == row and (target_prefix == prefix or (prefix, target_prefix) in SIDEWAYS)
        assert target_row < row or same, f"{name} ({prefix}) must not import {target} ({target_prefix})"


@pytest.mark.parametrize("name", list(MODULES))
def test_each_library_has_one_owner(name: str) -> None:
    for target in sorted(_imports(name)):
        owners = OWNERS.get(target.split(".")[0])
        assert owners is None or _below(name, owners), (
            f"{name} imports {target}, which belongs to {', '.join(owners or ())}"
        )


def test_no_import_cycles() -> None:
    graph = {name: {t for t in _imports(name, deep=False) if t in MODULES and t != "msmedcap"} for name in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", list(MODULES))
def test_every_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name]), f"{MODULES[name]} has no module docstring"


@pytest.mark.parametrize("name", list(MODULES))
def test_everything_can_be_read_in_one_sitting(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{name} has {lines} lines"
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{name}.{node.name} has {length} lines"


@pytest.mark.parametrize("name", ["msmedcap", "msmedcap.__main__", "msmedcap.config", "msmedcap.systems"])
def test_import_waits_for_no_heavy_library(name: str) -> None:
    heavy = ("torch", "transformers", "gradio", "numpy", "pydicom")
    code = f"import sys, {name}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
