"""CNI's errors: every refusal is a code of the specification, a sentence and, where it helps, details."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Error codes of the CNI specification, and ours from 100."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    ENVIRONMENT = 4
    IO = 5
    DECODING = 6
    CONFIGURATION = 7
    TRY_AGAIN = 11
    UNAVAILABLE = 50
    LIMITED = 51
    NAMESPACE = 100
    """The network namespace can't be used: gone, no namespace, or the host's own."""
    MISMATCH = 101
    """CHECK found something else than ADD made."""
    KERNEL = 102
    """The kernel refused a device, address or route."""
    ADDRESSES = 103
    """IPAM gave no address."""


class CniError(Exception):
    """A refusal of a CNI call. `msg` says what and where; `details` how it came about or how to mend it."""

    def __init__(self, code: Code, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details
