"""Command-line flags in the order in which they were given, spelled as Go programs take them.

`--not` concerns the next filter, and a repeated filter is one of several: so order counts, which typer doesn't keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ciliate.cli.dispatch import CommandError


class UsageError(CommandError):
    """A flag, its value, or a combination is wrong; the message says which and how to mend it."""


@dataclass(frozen=True)
class Flag:
    """One flag: `--name VALUE`, or a switch if `value` is empty."""

    name: str
    doc: str
    value: str = ""  # what stands for its value in the help
    short: str = ""
    default: str = ""


@dataclass(frozen=True)
class Given:
    """A flag as it was given; a switch's value is `true` or `false`."""

    flag: Flag
    value: str

    @property
    def name(self) -> str:
        """The flag's name."""
        return self.flag.name


Groups = dict[str, tuple[Flag, ...]]
"""Flags under the headings of the help."""

HELP = Flag("help", "This text.", short="h")


def parse(arguments: Sequence[str], groups: Groups) -> tuple[list[Given], list[str]]:
    """The flags given, in order, and the words that are none. Raises UsageError."""
    known = [HELP, *(flag for flags in groups.values() for flag in flags)]
    long, short = {flag.name: flag for flag in known}, {flag.short: flag for flag in known if flag.short}
    given: list[Given] = []
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            words += rest
        elif argument.startswith("--"):
            given.append(_long(argument[2:], long, rest))
        elif argument.startswith("-") and argument != "-":
            given += _short(argument[1:], short, rest)
        else:
            words.append(argument)
    return given, words


def _long(text: str, known: dict[str, Flag], rest: Iterator[str]) -> Given:
    name, equals, value = text.partition("=")
    if name not in known:
        raise UsageError(f"unknown flag --{name}; --help lists them")
    flag = known[name]
    if not flag.value:
        return _switch(flag, value if equals else "true")
    return Given(flag, value if equals else _next(f"--{name}", flag, rest))


def _short(letters: str, known: dict[str, Flag], rest: Iterator[str]) -> Iterator[Given]:
    """Several switches may share a dash; the rest of the word behind a flag with a value is its value."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in known:
            raise UsageError(f"unknown flag -{letter}; --help lists them")
        flag = known[letter]
        if letters.startswith("="):
            yield _switch(flag, letters[1:]) if not flag.value else Given(flag, letters[1:])
            return
        if not flag.value:
            yield _switch(flag, "true")
            continue
        yield Given(flag, letters or _next(f"-{letter}", flag, rest))
        return


def _switch(flag: Flag, value: str) -> Given:
    return Given(flag, "true" if truth(f"--{flag.name}", value) else "false")


def _next(spelled: str, flag: Flag, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise UsageError(f"{spelled} needs a value: {spelled} {flag.value}")
    return value


def truth(what: str, text: str) -> bool:
    """A boolean in one of Go's spellings. Raises UsageError."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"{what}: {text!r} is neither true nor false")


def help_text(usage: str, summary: str, groups: Groups) -> str:
    """What `--help` prints."""
    lines = [f"Usage: {usage}", "", f"  {summary}"]
    for heading, flags in groups.items():
        lines += ["", f"{heading}:"]
        for flag in flags:
            spelled = f"{f'-{flag.short}, ' if flag.short else '    '}--{flag.name} {flag.value}".rstrip()
            default = f" (default: {flag.default})" if flag.default else ""
            gap = "\n" + " " * 40 if len(spelled) > 36 else " " * (38 - len(spelled))
            lines.append(f"  {spelled}{gap}{flag.doc}{default}")
    return "\n".join(lines)
