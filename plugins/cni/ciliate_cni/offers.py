"""Plugins' programs offered for the points of a packet's path, each by the process that its plugin runs in.

An offer is a folder <bpffs>/points/<point>/<plugin>:<program> with the pinned program and a link `order`. It holds
while the process that made it does, which keeps the folder locked. The keeper answers by a link `answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

from ciliate.health import Health
from ciliate.kernel import bpffs
from ciliate.kernel.errors import KernelError
from ciliate.maps.ownership import MapOwnedError
from ciliate.maps.registry import MapRegistry
from ciliate.programs.elf import LoadError
from ciliate.programs.layouts import LayoutMismatchError
from ciliate.programs.object import ProgramSet
from ciliate.programs.points import PointProgram
from ciliate.programs.program import ProgramKind
from ciliate.worker import Worker

FOLDER = "points"
ANSWER_INTERVAL = 0.5
_FORBIDDEN = {
    9: "skb_store_bytes", 10: "l3_csum_replace", 11: "l4_csum_replace", 12: "tail_call", 13: "clone_redirect",
    18: "skb_vlan_push", 19: "skb_vlan_pop", 21: "skb_set_tunnel_key", 23: "redirect", 31: "skb_change_proto",
    32: "skb_change_type", 38: "skb_change_tail", 43: "skb_change_head", 50: "skb_adjust_room", 51: "redirect_map",
    124: "sk_assign", 152: "redirect_neigh", 155: "redirect_peer",
}  # fmt: skip
"""Helpers that change a packet or where it goes. (Direct writes look like reads: there a plugin is trusted.)"""


class Offer:
    """A loaded program, offered until `close` or the end of the process."""

    def __init__(self, wanted: PointProgram, plugin: str, registry: MapRegistry) -> None:
        """Load and pin. Raises what ProgramSet.load raises; LoadError for what a plugin's program may not do."""
        self.folder = registry.root / FOLDER / wanted.point / f"{plugin}:{wanted.program}"
        with ProgramSet.load(wanted.object, registry, wanted.rodata, plugin) as programs:
            _check(programs, wanted)
            bpffs.ensure_folder(self.folder)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            for name in ("order", "answer"):
                (self.folder / name).unlink(missing_ok=True)
            (self.folder / "order").symlink_to(str(wanted.order))
            programs.program(wanted.program).pin(self.folder / "program")
            registry.swap(programs.maps)
            registry.drop_old(programs.maps)

    def answer(self) -> str:
        """What the keeper says: `slot N`, another text for a refusal, or nothing yet."""
        with contextlib.suppress(FileNotFoundError):
            return os.readlink(self.folder / "answer")  # noqa: PTH115 - a Path would be another text
        return ""

    def close(self) -> None:
        """Withdraw the offer; its keeper takes the program out after a while in which nobody renews it."""
        os.close(self._lock)


def _check(programs: ProgramSet, wanted: PointProgram) -> None:
    if programs.program(wanted.program).info().kind != ProgramKind.SCHED_CLS:
        raise LoadError(f'{wanted.object.name}: program {wanted.program} must be in SEC("tc")')
    if called := [_FORBIDDEN[number] for number in sorted(programs.called) if number in _FORBIDDEN]:
        raise LoadError(f"{wanted.object.name}: a plugin's program may not call bpf_{', bpf_'.join(called)}")


def _withdraw(made: asyncio.Future[Offer]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


async def keep_offered(
    wanted: PointProgram, plugin: str, registry: MapRegistry, worker: Worker, health: Health
) -> None:
    """Offer a program for the time of this task. Health says whether it runs; what is refused is not tried again."""
    condition = f"program {wanted.program}"
    health.not_ready("is being loaded", condition)
    making = asyncio.ensure_future(worker.call(Offer, wanted, plugin, registry))
    try:
        offer = await asyncio.shield(making)
    except (LoadError, LayoutMismatchError) as error:
        health.not_ready(f"left out of {wanted.point}: {error}", condition)
        return
    except (KernelError, MapOwnedError) as error:  # the node's own programs are not there yet, or the last life of this
        health.not_ready(str(error), condition)
        raise
    except asyncio.CancelledError:
        making.add_done_callback(_withdraw)
        raise
    try:
        while True:
            answer = offer.answer()
            if not (offer.folder / "program").exists():
                raise FileNotFoundError(f"somebody removed the offer {offer.folder}: it is made anew")
            if answer.startswith("slot "):
                health.ready(condition)
            else:
                health.not_ready(answer or f"nobody keeps {wanted.point}: does the plugin cni run?", condition)
            await asyncio.sleep(ANSWER_INTERVAL)
    finally:
        offer.close()
