"""All the ways to attach a program, by one name each."""

from __future__ import annotations

from ciliate.programs.clsact import Filter, attach_clsact, clsact_messages, detach_clsact, list_clsact
from ciliate.programs.tcx import Hook, Link, attach_tcx, detach_tcx, list_tcx, pinned_tcx

__all__ = [
    "Filter",
    "Hook",
    "Link",
    "attach_clsact",
    "attach_tcx",
    "clsact_messages",
    "detach_clsact",
    "detach_tcx",
    "list_clsact",
    "list_tcx",
    "pinned_tcx",
]
