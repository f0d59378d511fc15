"""Writes include/ciliate/reasons.h from ciliate.model.reasons, so that the two cannot drift. Run by bpf/Makefile."""

from __future__ import annotations

import sys
from pathlib import Path

from ciliate.model.reasons import DropReason

HEAD = """/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Made by bpf/generate.py from core/ciliate/model/reasons.py: change it there. */
#pragma once

"""


def reasons_header() -> str:
    """The text of reasons.h: one #define a reason, named DROP_ and the member's name."""
    lines = [f"#define DROP_{reason.name} {int(reason)} /* {reason.text} */" for reason in DropReason]
    return HEAD + "\n".join(lines) + "\n"


def main(target: Path) -> None:
    """Write the header, unless it is the same already: make compares times."""
    text = reasons_header()
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
