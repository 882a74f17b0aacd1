"""Who may import whom: the app opens fast because it never loads torch, and the engine knows nothing of the app."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import refuse_unless_loopback

ROOT = Path(__file__).resolve().parent.parent

TORCH_FREE = [
    "app.cli",
    "app.queue",
    "app.tasks",
    "app.worker",
    "app.worker_main",
    "trainers.capabilities",
    "trainers.config",
    "trainers.config_io",
    "trainers.control",
    "trainers.data.buckets",
    "trainers.data.captions",
    "trainers.errors",
    "trainers.events",
    "trainers.failure",
    "trainers.families.detect",
    "trainers.families.sides",
    "trainers.importing.imported",
    "trainers.importing.report",
    "trainers.prompts",
    "trainers.threads",
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_loads_without_torch(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"{module} imports torch"


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: path.name)
def test_app_names_no_torch_library(path):
    libraries = {"torch", "diffusers", "transformers", "peft", "accelerate"}
    assert not imported_packages(path) & libraries


@pytest.mark.parametrize(
    "path", sorted((ROOT / "trainers").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_engine_never_imports_the_app(path):
    assert "app" not in imported_packages(path)


def test_tests_reach_no_other_machine():
    refuse_unless_loopback("127.0.0.1")
    with pytest.raises(OSError, match=r"example\.org"):
        refuse_unless_loopback("example.org")


def imported_packages(path: Path) -> set[str]:
    """Top-level names of all absolute imports in a file, wherever in it they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names
