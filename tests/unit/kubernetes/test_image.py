"""The image: wheels hold what is no Python, and the Dockerfile installs what the tests' image has."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.kubernetes.ciliate_image import ROOMS

ROOT = Path(__file__).resolve().parents[3]
BUILT = {
    "core": "ciliate/_bpf/build/node.bpf.o",
    "plugins/cni": "ciliate_cni/_bin/ciliate-cni",
    "plugins/node": "ciliate_node/_bin/ciliate-hold",
    "plugins/kubernetes": "ciliate_kubernetes/install/manifests/agent.yaml",
}


@pytest.mark.parametrize(("room", "file"), BUILT.items())
def test_a_wheel_has_what_is_no_python(room: str, file: str, tmp_path: Path) -> None:
    if not (ROOT / ("bpf/build/node.bpf.o" if room == "core" else f"{room}/{file}")).exists():
        pytest.skip("not built: run `make bpf shim`")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT / room, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert file in names
    assert len(names) == len(set(names))


def test_the_dockerfile_installs_the_rooms_of_the_tests_image() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    found = re.search(r"--find-links /wheels \\\n\s+(ciliate [^\\]+)\\", text)
    assert found is not None
    assert found[1].split() == ["ciliate", *(f"ciliate-{room}" for room in ROOMS)]
