"""Deletions that the shim wrote down while no agent answered: one file an attachment, its content the call's frame."""

from __future__ import annotations

from pathlib import Path

import structlog

from ciliate_cni import wire

log = structlog.get_logger("cni.queue")
FOLDER = "delete-queue"


class DeleteQueue:
    """The folder <run_dir>/delete-queue."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / FOLDER

    def pending(self) -> list[tuple[Path, wire.Request]]:
        """Every queued deletion. A file that is none is renamed (.bad) and logged, so that nothing is lost unseen."""
        if not self.folder.is_dir():
            return []
        found = []
        for path in sorted(self.folder.glob("*.del")):
            try:
                found.append((path, wire.decode_request(path.read_bytes())))
            except wire.WireError as error:
                path.rename(path.with_suffix(".bad"))
                log.error(
                    "a queued deletion is unreadable; set aside", file=str(path.with_suffix(".bad")), error=str(error)
                )
        return found

    def holds(self, container_id: bytes, interface: bytes) -> bool:
        """Whether a deletion of this attachment waits."""
        return (self.folder / wire.queue_name(container_id, interface)).exists()

    def settle(self, container_id: bytes, interface: bytes) -> None:
        """A deletion of this attachment has been carried out, or is out of date."""
        (self.folder / wire.queue_name(container_id, interface)).unlink(missing_ok=True)
