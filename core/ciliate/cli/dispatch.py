"""Commands found by entry points and imported when they are called.

An entry point's name is the command; dots nest (`bpf.ct` is `bpf ct`). It names a typer app or a plain function with
typer's annotations. Commands of the core are entry points too.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NoReturn

import typer

from ciliate.api.routes import ApiError
from ciliate.config import ConfigError
from ciliate.garbage import importing
from ciliate.store import StoreError

CONTEXT, KUBECONFIG = "CILIATE_CONTEXT", "CILIATE_KUBECONFIG"
"""Which cluster elsewhere is meant; the options --context and --kubeconfig of every command set them."""
_EVERYWHERE = {"--context": CONTEXT, "--kubeconfig": KUBECONFIG}


class CommandError(Exception):
    """A command can't go on; the message is all that the user sees, and the exit status is 1."""


def run(program: str, group: str, summary: str, arguments: list[str] | None = None) -> NoReturn:
    """Find the command that the first words name, run it, and exit with its status."""
    words = _without_options_of_all(sys.argv[1:] if arguments is None else arguments)
    points = {point.name: point for point in entry_points(group=group)}
    names = _leading_words(words)
    for count in range(len(names), 0, -1):
        name = ".".join(names[:count])
        if name in points:
            _call(points[name], f"{program} {' '.join(names[:count])}", words[count:])
    prefix = ".".join(names)
    while prefix and not any(name.startswith(prefix + ".") for name in points):
        prefix = prefix.rpartition(".")[0]
    unknown = names[len(prefix.split(".")) if prefix else 0 :]
    if unknown:
        place = f"{program} {prefix.replace('.', ' ')}".strip()
        print(f"{place}: no command {unknown[0]!r}; `{place} --help` lists them", file=sys.stderr)
        raise SystemExit(2)
    try:
        _print_help(program, summary, points, prefix)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise _left(error) from error
    raise SystemExit(0 if words else 2)


def _left(_: BrokenPipeError) -> SystemExit:
    """The reader of our output has gone (`| head`): end as a program that a SIGPIPE ends, without a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SystemExit(141)


def _without_options_of_all(words: list[str]) -> list[str]:
    """Take out what may stand in every command, before or after its name; the environment tells the command of it."""
    end = words.index("--") if "--" in words else len(words)
    kept: list[str] = []
    own = iter(words[:end])
    for word in own:
        option, separator, value = word.partition("=")
        if option not in _EVERYWHERE:
            kept.append(word)
            continue
        if not separator and not (value := next(own, "")):
            print(f"{option} needs a value", file=sys.stderr)
            raise SystemExit(2)
        os.environ[_EVERYWHERE[option]] = value
    return kept + words[end:]


def _leading_words(words: list[str]) -> list[str]:
    leading: list[str] = []
    for word in words:
        if word.startswith("-"):
            break
        leading.append(word)
    return leading


def _call(point: EntryPoint, program: str, arguments: list[str]) -> NoReturn:
    try:
        with importing():
            target = point.load()
    except Exception as error:
        print(f"{program}: {point.value} can't be imported: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    if isinstance(target, typer.Typer):
        app = target
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(target)
    try:
        app(arguments, prog_name=program)
    except (CommandError, ApiError, ConfigError, StoreError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except BrokenPipeError as error:
        raise _left(error) from error
    raise SystemExit(0)


def _print_help(program: str, summary: str, points: dict[str, EntryPoint], prefix: str) -> None:
    place = f"{program} {prefix.replace('.', ' ')}".strip()
    print(f"Usage: {place} COMMAND [OPTIONS]\n\n  {summary}\n\nCommands:")
    start = prefix + "." if prefix else ""
    below = {name[len(start) :] for name in points if name.startswith(start)}
    for first in sorted({name.split(".")[0] for name in below}):
        exact = points.get(start + first)
        nested = sorted({n.split(".")[1] for n in below if n.startswith(first + ".")})
        print(f"  {first:<14} {_summary(exact) if exact else ', '.join(nested)}")
    print(f"\n`{place} COMMAND --help` tells about one. All take --context and --kubeconfig: a cluster elsewhere.")


def _summary(point: EntryPoint) -> str:
    """The first line of a command's docstring, read from its source: nothing is imported for help."""
    module, _, attribute = point.value.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return f"({point.value} is missing)"
    if spec is None or spec.origin is None:
        return f"({point.value} is missing)"
    return _docstring(Path(spec.origin), attribute)


def _docstring(path: Path, attribute: str) -> str:
    import ast

    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == attribute:
            return (ast.get_docstring(node) or "").split("\n")[0]
        named = isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == attribute for t in node.targets
        )
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            for keyword in node.value.keywords:
                if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return (ast.get_docstring(tree) or "").split("\n")[0]
