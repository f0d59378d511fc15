"""What a kubelet keeps of each pod on disk, so that another kubelet can take over."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec


class PodRecord(msgspec.Struct):
    """One pod of this node. Written before what it names is made: nothing is ever unaccounted for."""

    uid: str
    namespace: str
    name: str
    container_id: str
    netns: str  # name of the network namespace
    cgroup: str
    log: str
    result: dict[str, Any] | None = None  # of CNI ADD; None: not added
    pid: int = 0  # of the process that waits for the command; 0: none
    pid_start: int = 0  # its start time, so that another process of that number is not taken for it
    started: float = 0.0  # seconds since the epoch
    restarts: int = 0
    last_code: int | None = None  # how the command ended last

    @property
    def addresses(self) -> list[str]:
        """The pod's addresses, without their prefix lengths."""
        return [str(ip["address"]).partition("/")[0] for ip in (self.result or {}).get("ips", [])]


class PodRecords:
    """The records of a node, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, uid: str) -> Path:
        """A record's file."""
        return self._folder / f"{uid}.json"

    def exit_file(self, uid: str) -> Path:
        """Where the waiting process leaves the command's exit status."""
        return self._folder / f"{uid}.exit"

    def begun_file(self, uid: str) -> Path:
        """Where it leaves the machine's uptime at which the command began: all is set up then."""
        return self._folder / f"{uid}.begun"

    def hosts_file(self, uid: str) -> Path:
        """The pod's /etc/hosts."""
        return self._folder / f"{uid}.hosts"

    def save(self, record: PodRecord) -> None:
        """Write a record, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"{record.uid}.new"
        new.write_bytes(msgspec.json.encode(record))
        new.rename(self.path(record.uid))

    def load(self) -> list[PodRecord]:
        """All records; one that can't be read is put aside by its name."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=PodRecord))
            except msgspec.DecodeError:
                path.rename(path.with_suffix(".corrupt"))
        return found

    def get(self, uid: str) -> PodRecord | None:
        """One record, or None."""
        try:
            return msgspec.json.decode(self.path(uid).read_bytes(), type=PodRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def age(self, uid: str) -> float:
        """Seconds since a pod's command began, whatever has been done to the wall clock since; 0: it has not."""
        try:
            return time.clock_gettime(time.CLOCK_BOOTTIME) - float(self.begun_file(uid).read_text())
        except (FileNotFoundError, ValueError):
            return 0.0

    def remove(self, uid: str) -> None:
        """Forget a pod."""
        for path in (self.exit_file(uid), self.begun_file(uid), self.hosts_file(uid), self.path(uid)):
            path.unlink(missing_ok=True)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since the machine's start, also of a zombie; 0 if there is none."""
    return int(_stat(pid)[19])


def runs(pid: int, start: int) -> bool:
    """Whether the process that started at that time is there and has not ended."""
    fields = _stat(pid) if pid else _NONE
    return fields[0] != "Z" and int(fields[19]) == start


def alive(record: PodRecord) -> bool:
    """Whether the pod's process is there and is the one that was started."""
    return record.pid_start != 0 and runs(record.pid, record.pid_start)


_NONE = ["Z", *("0" for _ in range(19))]


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _NONE
    return text[text.rindex(")") + 2 :].split()


def reap(pid: int) -> int | None:
    """The exit status of an ended child; None if it has not ended, or if a former kubelet started it."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return _shell_status(os.waitstatus_to_exitcode(status)) if ended else None


def _shell_status(code: int) -> int:
    """A death by signal as a shell tells it."""
    return 128 - code if code < 0 else code
