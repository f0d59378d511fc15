"""Refusals say what, why and how, also after they have crossed a process."""

from __future__ import annotations

import errno
import pickle

from ciliate.kernel.errors import KernelError


def test_the_text_says_what_why_and_how() -> None:
    error = KernelError(errno.EPERM, "creating map policy")
    assert str(error) == (
        "creating map policy: Operation not permitted (run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)"
    )
    assert error.errno == errno.EPERM


def test_an_error_survives_pickling() -> None:
    error = KernelError(errno.ENOENT, "opening the pin /x", "start its owner")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
