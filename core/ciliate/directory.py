"""The directory of a node's processes: one file each, saying where it listens and what it serves."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ciliate.api.routes import Route


class Card(msgspec.Struct, kw_only=True):
    """What one process tells the others. A dead process leaves its card; that its socket refuses tells so."""

    process: str
    pid: int
    socket: str
    version: str = ""
    plugins: list[str] = []
    tables: list[str] = []  # that it writes
    topics: list[str] = []  # that it emits
    routes: list[tuple[str, str]] = []  # method, pattern


def folder(run_dir: Path) -> Path:
    """Where the cards are."""
    return run_dir / "directory"


def publish(run_dir: Path, card: Card) -> None:
    """Leave or replace a card; readers see the old one or the new one, whole."""
    place = folder(run_dir)
    place.mkdir(parents=True, exist_ok=True)
    new = place / f".{card.process}.new"
    new.write_bytes(msgspec.json.encode(card))
    new.rename(place / f"{card.process}.json")


def withdraw(run_dir: Path, process: str) -> None:
    """Take a card away."""
    (folder(run_dir) / f"{process}.json").unlink(missing_ok=True)


def cards(run_dir: Path) -> list[Card]:
    """All cards, the newest first; one that can't be read is left out."""
    found: list[tuple[int, Card]] = []
    for path in folder(run_dir).glob("*.json"):
        try:
            found.append((path.stat().st_mtime_ns, msgspec.json.decode(path.read_bytes(), type=Card)))
        except (OSError, msgspec.DecodeError):
            continue
    return [card for _, card in sorted(found, key=lambda item: -item[0])]


def serving(run_dir: Path, method: str, path: str) -> list[Card]:
    """The processes that serve a call."""
    return [
        card
        for card in cards(run_dir)
        if any(Route(*route, _nothing, "").match(method, path) is not None for route in card.routes)
    ]


async def _nothing(_: object) -> None: ...
