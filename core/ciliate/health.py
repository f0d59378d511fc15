"""Health: what each plugin says of itself. The node is ready when every essential one is; by others it is degraded."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Health:
    """One plugin's conditions by name. A condition is ready, or not for a stated reason."""

    plugin: str
    conditions: dict[str, str] = field(default_factory=dict)

    def ready(self, condition: str = "ready") -> None:
        """The condition holds."""
        self.conditions[condition] = ""

    def not_ready(self, reason: str, condition: str = "ready") -> None:
        """The condition does not hold, because of `reason`."""
        self.conditions[condition] = reason

    def drop(self, condition: str) -> None:
        """Forget a condition that no longer concerns."""
        self.conditions.pop(condition, None)

    @property
    def reasons(self) -> list[str]:
        """Why the plugin is not ready; empty if it is."""
        return [f"{name}: {reason}" for name, reason in self.conditions.items() if reason]
