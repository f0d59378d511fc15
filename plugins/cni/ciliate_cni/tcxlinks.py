"""Pods' programs by tcx links in front of their clsact filters, pinned under their endpoints' ids. For the worker.

A packet that a tcx link's program has decided on never comes to the clsact filter behind it, so each is judged once,
before, while and after a link is made or broken. The filter stays: should a pin be lost, it judges again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ciliate.programs.attach import Hook, attach_tcx, detach_tcx, pinned_tcx
from ciliate.programs.program import Program

from ciliate_cni.attach import host_index


class TcxLinks:
    """The links of this node's endpoints. Making or breaking one holds rtnl for about 13 ms."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def attach(self, endpoint: int, program: Program) -> None:
        """Have an endpoint's packets judged by a tcx link. Raises KernelError (ENODEV: the pair is gone)."""
        attach_tcx(host_index(endpoint), program, Hook.INGRESS, self._pin(endpoint)).close()

    def detach(self, endpoint: int) -> bool:
        """Have them judged by the clsact filter again; whether there was a link."""
        return detach_tcx(self._pin(endpoint))

    def forget(self, endpoints: Iterable[int]) -> None:
        """Remove the pins of endpoints whose devices are gone: nothing is left to be detached."""
        for endpoint in endpoints:
            self._pin(endpoint).unlink(missing_ok=True)

    def adopt(self, known: Iterable[int], program: Program) -> set[int]:
        """After a start: have every link that stands run this program, replaced atomically; the endpoints of these.

        Pins of endpoints that are not known, and of devices that are gone, are removed.
        """
        pinned, standing = self._pinned(), set[int]()
        for endpoint in pinned & set(known):
            if self._update(endpoint, program):
                standing.add(endpoint)
        self.forget(pinned - standing)
        return standing

    def remove_all(self) -> None:
        """Detach whatever is pinned."""
        for endpoint in self._pinned():
            self.detach(endpoint)

    def _update(self, endpoint: int, program: Program) -> bool:
        """Whether the link is at the endpoint's interface, and runs the program now."""
        link = pinned_tcx(self._pin(endpoint))
        if link is None:
            return False
        try:
            info = link.info()
            if info.ifindex != host_index(endpoint):
                return False
            if info.program_id != program.info().id:
                link.update(program)
            return True
        finally:
            link.close()

    def _pinned(self) -> set[int]:
        if not self._folder.is_dir():
            return set()
        return {int(pin.name) for pin in self._folder.iterdir() if pin.name.isdigit()}

    def _pin(self, endpoint: int) -> Path:
        return self._folder / str(endpoint)
