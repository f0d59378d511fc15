"""A plugin's program at a point of a packet's path, as it is declared.

Whose kind of point it is loads and offers it: a driver in the group `ciliate.points`, a coroutine function that takes
(PointProgram, plugin, MapRegistry, Worker, Health) and runs for as long as the plugin does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ciliate.programs.elf import Constant


@dataclass(frozen=True)
class PointProgram:
    """A program of an object file, loaded as `tc`, at a point. Lower orders run first; equal ones by plugin's name.

    Its maps are those that the plugin declares in `ciliate_maps`, any others in the object (they become the plugin's),
    and `point_packet`. rodata: values of `volatile const` variables.
    """

    point: str
    object: Path
    program: str
    order: int = 50
    rodata: Mapping[str, Constant] = field(default_factory=dict)
