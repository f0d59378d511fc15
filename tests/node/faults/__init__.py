"""Fault tests: something breaks under traffic, and what is allowed stays allowed, what is denied stays denied.

Here belong faults and what measures them: the steady traffic (`steady`), pods that come and go (`churn`), random kills
(`kills`), and the inventory that finds what is leaked (`inventory`). What works without faults is tested elsewhere.

CILIATE_FAULTS=full runs all of them, and the kills for ten minutes; CILIATE_SEED=N repeats a run of kills.
"""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("CILIATE_FAULTS") == "full"
full_only = pytest.mark.skipif(not FULL, reason="takes long: CILIATE_FAULTS=full runs it")
