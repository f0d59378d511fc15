"""The packages of examples/ are small, say what they are, and need nothing that a stranger's could not have."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
EXAMPLES = sorted(path.parent for path in TOP.glob("examples/*/pyproject.toml"))
MOST_LINES = 200
BUILT_IN = {path.name for path in TOP.glob("plugins/*/ciliate_*")}


def sources(example: Path) -> list[Path]:
    """What the package is made of."""
    return [path for path in example.glob("ciliate_*/*") if path.suffix in (".py", ".c", ".h")]


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_has_a_readme_that_says_how_short(example: Path) -> None:
    count = sum(len(path.read_text().splitlines()) for path in sources(example))
    assert count < MOST_LINES
    assert f"in {count} lines" in (example / "README.md").read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_named_as_our_own_plugins_are(example: Path) -> None:
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    package = f"ciliate_{example.name.replace('-', '_')}"
    assert project["name"] == f"ciliate-{example.name}"
    assert project["dependencies"] == ["ciliate"]
    assert project["entry-points"]["ciliate.plugins"][example.name].startswith(f"{package}.plugin:")
    assert {path.parent.name for path in sources(example)} == {package}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_no_built_in_plugin(example: Path) -> None:
    imported = {name.split(".")[0] for path in example.rglob("*.py") for name in imports(path)}
    assert imported & BUILT_IN == set()


def test_setup_installs_no_example() -> None:
    assert "examples" not in (TOP / "scripts" / "setup").read_text()
    assert len(EXAMPLES) == 2
