"""An endpoint's entry has the layout that the programs read."""

from __future__ import annotations

import numpy as np
from ciliate.model.base import pack_address
from ciliate.model.endpoint import ENDPOINT_ENTRY, ENDPOINT_VALID
from ciliate_cni.endpoints import entry_of

from tests.unit.cni.test_result import ENDPOINT


def test_an_entry_is_packed_as_its_dtype_says() -> None:
    (entry,) = np.frombuffer(entry_of(ENDPOINT), ENDPOINT_ENTRY)
    assert (entry["ifindex"], entry["generation"], entry["flags"]) == (0x10007, 1, ENDPOINT_VALID)
    assert entry["ipv4"].tobytes() == pack_address("10.0.0.7")
    assert entry["ipv6"].tobytes() == pack_address("fd00::7")
    assert (entry["mac"].tobytes().hex(), entry["host_mac"].tobytes().hex()) == ("020000000007", "020000000008")
