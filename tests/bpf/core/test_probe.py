"""Features are tried for real, and what is missing is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ciliate.kernel import probes
from ciliate.kernel.errors import FeatureMissingError, KernelError
from ciliate.kernel.probe import Feature, probe, probe_all, require


@pytest.mark.parametrize("feature", Feature, ids=lambda feature: feature.value)
def test_a_kernel_that_is_new_enough_has_the_feature(feature: Feature) -> None:
    result = probe(feature)
    since = tuple(int(part) for part in feature.since.split("."))
    running = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if not result.available and running < since:
        pytest.skip(f"{feature.value} exists since {feature.since}: {result.detail}")
    assert result.available, result.detail
    require(feature, "this test")


def test_every_feature_is_reported_once() -> None:
    assert [result.feature for result in probe_all()] == list(Feature)


def test_what_no_kernel_has_is_found_missing() -> None:
    with pytest.raises(KernelError, match="Invalid argument"):
        probes.helper(60_000)
    with pytest.raises(KernelError, match="creating map probe"):
        probes.make_map(9_999, 4, 4, 4)


def test_a_missing_feature_is_named_with_who_needs_it() -> None:
    error = FeatureMissingError("tcx", "the plugin routing", "6.6", "attaching: Invalid argument")
    for part in ("kernel feature tcx is missing", "needed by the plugin routing", "since Linux 6.6", "this one is"):
        assert part in str(error)


def test_without_rights_nothing_is_said_about_the_kernel() -> None:
    code = (
        "import os; os.setuid(65534)\n"
        "from ciliate.kernel.probe import Feature, probe\n"
        "try: probe(Feature.RINGBUF)\n"
        "except OSError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert "run as root, or with CAP_BPF" in shown.stdout
