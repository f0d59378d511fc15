"""A second version of Ciliate: a copy of this checkout with rows, versions and programs that differ."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ZONE = '    zone: str = "of the next"'
MAIN = """#!{python}
import sys
sys.path[:0] = {paths!r}
from ciliate.cli.main import main
main()
"""


def next_version(folder: Path) -> Path:
    """Make the next version in a folder; its program.

    Endpoints and addresses have a field more; the programs have another constant, so that all of them are replaced.
    """
    rooms = ["core", *(f"plugins/{path.name}" for path in (ROOT / "plugins").iterdir() if path.is_dir())]
    for room in rooms:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    _change(folder / "core/ciliate/__init__.py", '__version__ = "', '__version__ = "99.')
    _change(folder / "core/ciliate/model/endpoint.py", "    network: str", f"{ZONE}\n    network: str")
    _change(folder / "core/ciliate/model/ipam.py", "    released: float", "    tenant: int = 7\n    released: float")
    _change(folder / "plugins/cni/ciliate_cni/datapath.py", "_DROP_WINDOW = 1", "_DROP_WINDOW = 2")
    program = folder / "ciliate"
    program.write_text(MAIN.format(python=sys.executable, paths=[str(folder / room) for room in rooms]))
    program.chmod(0o755)
    return program


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path}: {old!r} is there {text.count(old)} times"
    path.write_text(text.replace(old, new))
