"""The section `denied-flows`."""

from typing import Annotated

from ciliate.plugin import Section
from msgspec import Meta


class DeniedFlowsSection(Section):
    """Where lines go, and which."""

    path: str = "denied-flows.jsonl"  # a relative one begins at the node's state_dir
    max_size: Annotated[int, Meta(ge=65536)] = 10_000_000  # bytes after which the file becomes <path>.1
    namespaces: list[str] = []  # of a flow's pods, one of them at least; empty: all flows
