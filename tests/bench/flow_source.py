"""A node's drain, as far as its readers know: `python -m tests.bench.flow_source RUN_DIR`, told what to write by lines.

A line `RATE COUNT KIND` has it write so many records at so many a second into the shared ring, then say `done SECONDS`.
KIND is mixed, as flows.one_in_a_hundred makes them, or traces, of which each is one flow.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ciliate_node.peers.ring import RingWriter, ring_path

from tests.bench import flows

STEP = 0.005
"""Seconds between two writes: as a drain that is woken by a burst."""
SLOTS = 32_768


def main() -> None:
    """Write what lines say, until there are no more."""
    path = ring_path(Path(sys.argv[1]))
    kinds = {"mixed": flows.one_in_a_hundred(100_000), "traces": flows.traces(100_000)}
    writer = RingWriter(path, kinds["mixed"].dtype, SLOTS)
    try:
        print("ready", flush=True)
        for line in sys.stdin:
            rate, count, kind = line.split()
            print(f"done {_write(writer, kinds[kind], int(rate), int(count)):.3f}", flush=True)
    finally:
        path.unlink(missing_ok=True)


def _write(writer: RingWriter, records: flows.Records, rate: int, count: int) -> float:
    """Seconds that it took. The records are written over and over, from the first."""
    began, written = time.monotonic(), 0
    while written < count:
        due = min(count, int((time.monotonic() - began) * rate) + 1)
        while written < due:
            at = written % len(records)
            some = records[at : at + min(due - written, len(records) - at)]
            some["time"] = time.monotonic_ns()
            writer.write(some)
            written += len(some)
        time.sleep(STEP)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
