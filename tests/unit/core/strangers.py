"""Installs a distribution of plugins into a folder, as pip would, for tests of loading and hosting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stevedore.extension import ExtensionManager


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, entry_points: str) -> None:
    """Put one module and its entry points on the path for the length of a test."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
    sys.modules.pop(module, None)
