"""What a process pays for having the driver, if it never asks it for anything."""

from __future__ import annotations

import subprocess
import sys


def test_heavy_packages_are_not_imported_before_the_first_request() -> None:
    code = (
        "import sys\n"
        "from ciliate_kubernetes.plugin import KubernetesPlugin\n"
        "from ciliate_kubernetes.store.driver import KubernetesStore\n"
        "store = KubernetesStore({'server': 'https://127.0.0.1:1'}, ())\n"
        "print([name for name in ('kubernetes', 'aiohttp', 'cryptography', 'grpc') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
