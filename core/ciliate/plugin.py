"""What a plugin is: a class with a declaration and hook implementations.

A distribution names the class under the entry-point group `ciliate.plugins`; the entry point's name is the plugin's.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of a plugin's configuration section: one typed struct, every field with a default."""


class Plugin:
    """Base of every plugin. Instances are made by the host, without arguments."""

    name: ClassVar[str]
    """As the entry point, the folder and the configuration section."""
    description: ClassVar[str] = ""
    """A sentence that adds to the name."""
    config: ClassVar[type[Section]] = Section
    needs: ClassVar[tuple[str, ...]] = ()
    """Plugins that must be set up before, if they are enabled."""
    needs_same_process: ClassVar[tuple[str, ...]] = ()
    """Plugins whose services it requires: enabled in the same process, or this one is refused."""
    essential: ClassVar[bool] = False
    """Restarted for ever, while the node is not ready; any other is disabled after some tries: the node is degraded."""
    roles: ClassVar[tuple[str, ...]] = ("agent",)
    """In which roles of a process it takes part: agent, operator, or a name of its own for `ciliate run`."""
