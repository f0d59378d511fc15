"""Refusals of the kernel, told as what, why and how to mend it."""

from __future__ import annotations

import errno
import os

_HINTS = {
    errno.EPERM: "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
    errno.EACCES: "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
    errno.ENOMEM: "the kernel has no memory for it: make the map smaller, or raise the cgroup's limit",
    errno.ENOSYS: "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL",
}


class KernelError(OSError):
    """The kernel refused. `errno` is its number; the text says what was tried, why not, and how to mend it."""

    def __init__(self, number: int, what: str, how: str = "") -> None:
        self.what = what
        self.how = how or _HINTS.get(number, "")
        super().__init__(number, os.strerror(number))

    def __reduce__(self) -> tuple[type[KernelError], tuple[int | None, str, str]]:
        return type(self), (self.errno, self.what, self.how)

    def __str__(self) -> str:
        text = f"{self.what}: {self.strerror}"
        return f"{text} ({self.how})" if self.how else text


class FeatureMissingError(RuntimeError):
    """This kernel lacks a feature. `feature` is its name; the text says who needs it and since when it exists."""

    def __init__(self, feature: str, needed_by: str, since: str, detail: str) -> None:
        self.feature = feature
        self.needed_by = needed_by
        super().__init__(
            f"kernel feature {feature} is missing ({detail}); needed by {needed_by}; exists since Linux {since}: "
            f"use a newer kernel or one built with it (this one is {os.uname().release})"
        )
