"""Plugins from elsewhere, as tests use them: programs compiled with the public header alone, and offered."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciliate.maps.registry import MapRegistry
from ciliate.programs.elf import Constant
from ciliate.programs.points import PointProgram
from ciliate_cni.offers import Offer

from tests.bpf.core.conftest import compile_object

SOURCES = Path(__file__).parent.parent / "programs"
OBJECTS = {"note": "stranger", "deny_port": "denier"}
"""Program to the object that it is in. (libbpf loads all of an object, and a map belongs to one plugin.)"""


def compile_strangers(folder: Path, bpf: Path) -> Path:
    """The folder, with all objects in it."""
    for name in OBJECTS.values():
        compile_stranger(folder / f"{name}.bpf.o", bpf, SOURCES / f"{name}.bpf.c")
    return folder


def compile_stranger(target: Path, bpf: Path, source: Path) -> Path:
    """A stranger's object file, made with the public header."""
    return compile_object(source, target, f"-I{bpf / 'include'}")


@dataclass
class Strangers:
    """Plugins, each with a registry of its own as if in a process of its own."""

    root: Path
    objects: Path
    offers: dict[str, Offer] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    registries: dict[str, MapRegistry] = field(default_factory=dict)

    def offer(
        self, program: str, plugin: str = "stranger", order: int = 50, path: Path | None = None, **rodata: Constant
    ) -> Offer:
        """Offer a program; an earlier offer of the same is replaced."""
        if plugin not in self.registries:
            self.registries[plugin] = self.held.enter_context(MapRegistry(self.root))
        self.withdraw(f"{plugin}:{program}")
        wanted = PointProgram("from_pod", path or self.objects / f"{OBJECTS[program]}.bpf.o", program, order, rodata)
        made = self.offers[f"{plugin}:{program}"] = Offer(wanted, plugin, self.registries[plugin])
        return made

    def withdraw(self, name: str) -> None:
        """Let go of an offer, as the death of its maker does."""
        if name in self.offers:
            self.offers.pop(name).close()

    def seen(self, plugin: str = "stranger") -> Any:
        """What the program `note` has noted."""
        return self.registries[plugin].open("stranger_seen").lookup(0)

    def close(self) -> None:
        """Withdraw all."""
        for name in list(self.offers):
            self.withdraw(name)
        self.held.close()
