"""The keeper of the points: plugins' offered programs are put into slots, in order, and what they did is counted.

An offer (offers.py) holds while its maker's lock does, and GRACE longer, so that a plugin that is
started anew takes its own slot over. Whatever changes, no program that stays is skipped meanwhile: when slots become
more they are written from the last, when fewer from the first, so that for a moment one may run twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from ciliate.kernel.errors import KernelError
from ciliate.maps.registry import MapRegistry
from ciliate.model.datapath import SWITCHES_MAP
from ciliate.model.points import FROM_POD_SLOTS_MAP, POINT_SLOTS_MAP, POINT_STATS_MAP, SLOTS, PluginPoint
from ciliate.programs.program import Program

from ciliate_cni.offers import FOLDER

log = structlog.get_logger("cni.points")
GRACE = 5.0
"""Seconds for which an offer outlives its maker."""
POINT = PluginPoint.FROM_POD
_COUNTS = ("packets", "drops", "invalid", "missed", "samples", "time")
_SWITCH_BYTE = 1  # of the mask word: the points' bits (bpf/include/ciliate/switches.h)


@dataclass(frozen=True)
class Offered:
    """One offer as it is found."""

    folder: Path
    order: int
    program_id: int

    @property
    def plugin(self) -> str:
        """Whose it is."""
        return self.folder.name.partition(":")[0]

    @property
    def program(self) -> str:
        """The name of its C function."""
        return self.folder.name.partition(":")[2]


class Points:
    """The slots of from_pod. For one thread at a time."""

    def __init__(self, registry: MapRegistry) -> None:
        self._folder = registry.root / FOLDER / POINT.name.lower()
        self._array = registry.open(FROM_POD_SLOTS_MAP.name, writable=True)
        self._masks = registry.open(POINT_SLOTS_MAP.name, writable=True).mmap(writable=True)
        self._stats = registry.open(POINT_STATS_MAP.name)
        switches = registry.open(SWITCHES_MAP.name, writable=True).mmap(writable=True)
        self._switches = memoryview(switches.base).cast("B")  # type: ignore[arg-type]
        self._unheld: dict[Path, float] = {}
        self._refused: dict[Path, tuple[int, str]] = {}
        self._late: dict[Path, str] = {}
        self._totals: dict[Path, dict[str, int]] = {}
        self.slots: list[Offered] = []
        self._lock = threading.Lock()
        self._before = self._read()

    def look(self) -> bool:
        """Make the slots equal to the offers; whether anything changed."""
        with self._lock:
            return self._look()

    def rows(self) -> list[dict[str, Any]]:
        """Every offered program with its slot and counts; `nanoseconds` is the mean of the sampled packets."""
        with self._lock:
            self._settle()
            rows = [self._row(offer.folder, slot, "") for slot, offer in enumerate(self.slots)]
            left_out = self._late | {folder: reason for folder, (_, reason) in self._refused.items()}
            return rows + [self._row(folder, None, reason) for folder, reason in left_out.items()]

    def name_of(self, plugin_slot: int) -> str:
        """Whose program an event's `plugin_slot` means, as it is now; empty: nobody's."""
        slots = self.slots
        return slots[plugin_slot - 1].folder.name if 0 < plugin_slot <= len(slots) else ""

    def _look(self) -> bool:
        offers = sorted(self._offers(), key=lambda offer: (offer.order, offer.folder.name))
        self._leave_out(offers[SLOTS:])
        wanted = offers[:SLOTS]
        if wanted == self.slots and self._are_in_place(wanted):
            return False
        self._settle()
        placed = self._place(wanted)
        changed = placed != self.slots
        self.slots = placed
        for number, offer in enumerate(placed):
            _answer(offer.folder, f"slot {number}")
        if changed:
            log.info("point", point=POINT.name.lower(), slots=[offer.folder.name for offer in placed])
        return changed

    def _row(self, folder: Path, slot: int | None, reason: str) -> dict[str, Any]:
        counts = self._totals.get(folder) or dict.fromkeys(_COUNTS, 0)
        plugin, _, program = folder.name.partition(":")
        shown = {"point": POINT.name.lower(), "slot": slot, "plugin": plugin, "program": program}
        mean = counts["time"] / counts["samples"] if counts["samples"] else 0.0
        return {**shown, **counts, "nanoseconds": round(mean, 1), "reason": reason}

    def _offers(self) -> Iterator[Offered]:
        with contextlib.suppress(FileNotFoundError):
            for folder in sorted(self._folder.iterdir()):
                if not self._is_held(folder):
                    log.info("point", point=POINT.name.lower(), withdrawn=folder.name)
                    self._forget(folder)
                elif (offer := _read_offer(folder)) is not None and not self._is_refused(offer):
                    yield offer

    def _is_held(self, folder: Path) -> bool:
        """Whether its maker lives, or has not been gone for long."""
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unheld.pop(folder, None)
            return True
        finally:
            os.close(lock)
        now = time.monotonic()
        return now - self._unheld.setdefault(folder, now) < GRACE

    def _is_refused(self, offer: Offered) -> bool:
        return self._refused.get(offer.folder, (0, ""))[0] == offer.program_id

    def _refuse(self, offer: Offered, reason: str) -> None:
        log.warning("point", point=POINT.name.lower(), left_out=offer.folder.name, reason=reason)
        self._refused[offer.folder] = offer.program_id, reason
        _answer(offer.folder, reason)

    def _leave_out(self, offers: list[Offered]) -> None:
        reason = f"all {SLOTS} slots of {POINT.name.lower()} are taken by programs that come earlier"
        for offer in offers:
            if offer.folder not in self._late:
                log.warning("point", point=POINT.name.lower(), left_out=offer.folder.name, reason=reason)
            _answer(offer.folder, reason)
        self._late = {offer.folder: reason for offer in offers}

    def _forget(self, folder: Path) -> None:
        for found in (self._unheld, self._refused, self._totals):
            found.pop(folder, None)
        with contextlib.suppress(FileNotFoundError):
            for entry in list(folder.iterdir()):
                entry.unlink()
            folder.rmdir()

    def _are_in_place(self, wanted: list[Offered]) -> bool:
        return [self._array.lookup(slot) for slot in range(len(wanted))] == [offer.program_id for offer in wanted]

    def _place(self, wanted: list[Offered]) -> list[Offered]:
        """Fill slots 0 to n-1; those whose programs the kernel refused are left out."""
        used = int(self._masks[POINT]).bit_length()
        slots = range(len(wanted)) if len(wanted) < used else reversed(range(len(wanted)))
        for slot in slots:
            try:
                self._put(slot, wanted[slot])
            except KernelError as error:
                self._refuse(wanted[slot], f"the kernel does not take it into a slot: {error}")
                return self._place([offer for offer in wanted if offer is not wanted[slot]])
            if not int(self._masks[POINT]) >> slot & 1:
                self._masks[POINT] |= np.uint32(1 << slot)
        self._masks[POINT] = np.uint32((1 << len(wanted)) - 1)
        for slot in range(len(wanted), SLOTS):
            self._array.delete(slot)
        bit = 1 << POINT
        byte = self._switches[_SWITCH_BYTE]
        self._switches[_SWITCH_BYTE] = byte | bit if wanted else byte & ~bit
        return wanted

    def _put(self, slot: int, offer: Offered) -> None:
        if self._array.lookup(slot) == offer.program_id:
            return
        program = Program.open_pinned(offer.folder / "program")
        try:
            self._array.update(slot, program.fd)
        finally:
            program.close()

    def _read(self) -> Any:
        _, values = self._stats.items()
        return {name: values[name].sum(axis=1)[POINT * SLOTS : (POINT + 1) * SLOTS].copy() for name in _COUNTS}

    def _settle(self) -> None:
        """Add what was counted since the last time to those in the slots."""
        now = self._read()
        for slot, offer in enumerate(self.slots):
            totals = self._totals.setdefault(offer.folder, dict.fromkeys(_COUNTS, 0))
            for name in _COUNTS:
                totals[name] += int(now[name][slot] - self._before[name][slot])
        self._before = now


def _read_offer(folder: Path) -> Offered | None:
    """None: it is being made, or replaced, just now."""
    try:
        order = int((folder / "order").readlink().name)
        program = Program.open_pinned(folder / "program")
    except (OSError, KernelError, ValueError):
        return None
    try:
        return Offered(folder, order, program.info().id)
    finally:
        program.close()


def _answer(folder: Path, text: str) -> None:
    link, fresh = folder / "answer", folder / "answer-new"
    with contextlib.suppress(FileNotFoundError):
        if link.is_symlink() and os.readlink(link) == text:  # noqa: PTH115 - a Path would be another text
            return
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(text)
        fresh.rename(link)
