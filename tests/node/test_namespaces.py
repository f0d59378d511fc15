"""The lab's network namespaces beside those of `ip netns`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ciliate_lab import namespaces

from tests.node.labs import reason_not_to_run

_SCRIPT = """
import subprocess
from ciliate_lab import namespaces
namespaces.create("{ours}")
subprocess.run(["mount", "--rbind", namespaces.FOLDER, namespaces.FOLDER], check=True)  # as the first `ip netns` does
subprocess.run(["ip", "netns", "add", "{other}"], check=True)
namespaces.delete("{ours}")
print(*namespaces.named("{ours}"), *namespaces.named("{other}"))
subprocess.run(["ip", "netns", "delete", "{other}"], check=True)
"""


def test_a_namespace_that_ip_netns_has_hidden_by_a_mount_can_be_deleted() -> None:
    if reason := reason_not_to_run():
        pytest.skip(reason)
    ours, other = f"hidden-{os.getpid()}", f"hiding-{os.getpid()}"
    script = _SCRIPT.format(ours=ours, other=other)
    command = ["unshare", "--mount", sys.executable, "-c", script]  # whose mounts are nobody else's
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout.strip(), done.stderr) == (other, "")
    assert namespaces.named(ours) == namespaces.named(other) == []
