"""`python without.py CMD[,CMD]... COMMAND...`: run a command on a kernel whose bpf(2) does not know some commands.

The kernel refuses them with EINVAL, as an older one would; enum bpf_cmd numbers them. By seccomp, so for good.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


def refuse(commands: list[int]) -> None:
    """From now on bpf(2) refuses these commands in this process and its children."""
    count = len(commands)
    lines = [(_LOAD, 0, 0, 0), (_EQUAL, 0, count + 1, _BPF), (_LOAD, 0, 0, 16)]  # the number; the first argument
    lines += [(_EQUAL, count - index, 0, command) for index, command in enumerate(commands)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EINVAL)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    program = struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, program):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse([int(number) for number in sys.argv[1].split(",")])
    os.execv(sys.argv[2], sys.argv[2:])
