"""`ciliate hubble`: the commands' front door. What a command does is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from ciliate_hubble.cli.flags import Given, Groups, UsageError, help_text, parse
from ciliate_hubble.cli.options import EVENTS, OBSERVE, SERVER, plain

_RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""Words are handed over as they are: typer doesn't keep the order of flags."""
_QUIET = {"add_completion": False, "pretty_exceptions_enable": False}

observe = typer.Typer(help="Show flows: what happened to packets, and the policies that decided.", **_QUIET)  # type: ignore[arg-type]
status = typer.Typer(help="Show whether the server answers, and how many flows it keeps.", **_QUIET)  # type: ignore[arg-type]
list_ = typer.Typer(help="List nodes behind the relay, or namespaces with recent flows.", **_QUIET)  # type: ignore[arg-type]
watch = typer.Typer(help="Watch nodes come and go, as a relay is told.", **_QUIET)  # type: ignore[arg-type]

Body = Callable[[Sequence[Given]], None]


@observe.command(context_settings=_RAW)
def _observe(context: typer.Context) -> None:
    kinds = ("flows", "agent-events", "debug-events")
    kind, words = _kind(context.args, kinds, default="flows")

    def body(given: Sequence[Given]) -> None:
        if kind == "flows":
            from ciliate_hubble.cli.observe import observe_flows

            observe_flows(given)
        else:
            from ciliate_hubble.cli.events import observe_events

            observe_events(kind, given)

    _run(observe, context, words, f"[{' | '.join(kinds)}]", OBSERVE if kind == "flows" else EVENTS, body)


@status.command(context_settings=_RAW)
def _status(context: typer.Context) -> None:
    def body(given: Sequence[Given]) -> None:
        from ciliate_hubble.cli.status import show_status

        show_status(given)

    _run(status, context, context.args, "", plain("compact, dict, json or table", "compact"), body)


@list_.command(context_settings=_RAW)
def _list(context: typer.Context) -> None:
    kinds = ("nodes", "namespaces")
    kind, words = _kind(context.args, kinds)

    def body(given: Sequence[Given]) -> None:
        from ciliate_hubble.cli import listing

        _require(kind, kinds)
        (listing.list_nodes if kind == "nodes" else listing.list_namespaces)(given)

    _run(list_, context, words, " | ".join(kinds), plain("table, wide or json", "table"), body)


@watch.command(context_settings=_RAW)
def _watch(context: typer.Context) -> None:
    kind, words = _kind(context.args, ("peers",))

    def body(given: Sequence[Given]) -> None:
        from ciliate_hubble.cli.watching import watch_peers

        _require(kind, ("peers",))
        watch_peers(given)

    _run(watch, context, words, "peers", {"Server": SERVER}, body)


def _kind(words: Sequence[str], kinds: Sequence[str], default: str = "") -> tuple[str, Sequence[str]]:
    """What a command is about, and the other words. The singular will do."""
    for kind in kinds:
        if words and words[0] in (kind, kind.removesuffix("s")):
            return kind, words[1:]
    return default, words


def _require(kind: str, kinds: Sequence[str]) -> None:
    if not kind:
        raise UsageError(f"say what: {' or '.join(kinds)}")


def _run(
    app: typer.Typer, context: typer.Context, words: Sequence[str], about: str, groups: Groups, body: Body
) -> None:
    given, left = parse(words, groups)
    if any(flag.name == "help" for flag in given):
        usage = " ".join(word for word in (context.command_path, about, "[FLAGS]") if word)
        print(help_text(usage, str(app.info.help), groups))
        return
    if left:
        raise UsageError(f"{left[0]!r} is no flag; --help lists them")
    try:
        body(given)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
