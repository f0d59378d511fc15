"""docs/extending.md: its code is that of the examples, whole, and it names every hook as it is declared."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
from ciliate import hookspecs
from ciliate.context import Context
from ciliate.plugin import Plugin

TOP = Path(__file__).parents[3]
TEXT = (TOP / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"<!-- (whole|part) (\S+) -->\n```\w+\n(.*?)\n```", re.DOTALL)
EXAMPLE = TOP / "examples" / "denied-flows"


def lines(text: str) -> list[str]:
    """A text's lines, without blank ones: between two blocks of a file there is text instead."""
    return [line for line in text.splitlines() if line.strip()]


def blocks(kind: str) -> dict[str, list[str]]:
    """Blocks of a kind by the file that they are from, in order."""
    found = defaultdict(list)
    for how, path, code in BLOCK.findall(TEXT):
        if how == kind:
            found[path].append(code)
    return dict(found)


@pytest.mark.parametrize("path", blocks("whole"))
def test_the_blocks_of_a_file_are_the_whole_file(path: str) -> None:
    assert lines("\n".join(blocks("whole")[path])) == lines((TOP / path).read_text())


@pytest.mark.parametrize("path", blocks("part"))
def test_a_part_of_a_file_is_in_it_as_it_stands(path: str) -> None:
    for code in blocks("part")[path]:
        assert code in (TOP / path).read_text()


def test_the_walk_leaves_no_file_of_its_example_out() -> None:
    shown = {TOP / path for path in blocks("whole")}
    wanted = {EXAMPLE / "pyproject.toml", *(EXAMPLE / "ciliate_denied_flows").glob("*.py")}
    assert shown == wanted


def test_code_that_is_from_no_file_is_for_the_shell() -> None:
    assert set(re.findall(r"```(\w+)\n", BLOCK.sub("", TEXT))) == {"sh"}


def declared_hooks() -> list[str]:
    """Each hook's signature, as `ciliate_review(obj: Object) -> Iterable[Finding]`."""
    tree = ast.parse(Path(hookspecs.__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("ciliate_")]
    return [f"{f.name}({ast.unparse(f.args)}) -> {ast.unparse(f.returns)}" for f in functions if f.returns]


def test_there_are_hooks_to_look_for() -> None:
    assert "ciliate_setup(context: Context) -> None" in declared_hooks()


@pytest.mark.parametrize("signature", declared_hooks())
def test_every_hook_is_named_with_its_signature(signature: str) -> None:
    assert f"\n`{signature}`\n: " in TEXT


def test_no_hook_is_named_that_there_is_not() -> None:
    assert set(re.findall(r"\n`(ciliate_\w+\(.*)`\n: ", TEXT)) == set(declared_hooks())


@pytest.mark.parametrize("kind", [Plugin, Context])
def test_every_attribute_of_plugin_and_context_is_named(kind: type) -> None:
    assert [name for name in kind.__annotations__ if f"`{name}`" not in TEXT] == []
