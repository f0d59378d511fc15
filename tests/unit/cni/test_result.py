"""Results in each version's shape, alone and behind other plugins."""

from __future__ import annotations

from typing import Any

import pytest
from ciliate.model.endpoint import Endpoint
from ciliate_cni.errors import CniError, Code
from ciliate_cni.netconf import VERSIONS
from ciliate_cni.result import mismatch, refuse_taken_interface, result_of
from hypothesis import given
from hypothesis import strategies as st

ENDPOINT = Endpoint(
    id=7,
    generation=1,
    container_id="c",
    interface="eth0",
    netns="/n",
    namespace="default",
    pod="p",
    host_interface="lxc012345678901",
    ipv4="10.0.0.7",
    ipv6="fd00::7",
    mac="02:00:00:00:00:07",
    host_mac="02:00:00:00:00:08",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_addresses_point_at_the_pods_interface(version: str) -> None:
    result = result_of(ENDPOINT, version, "/n", None)
    assert result["cniVersion"] == version
    assert [ip["address"] for ip in result["ips"]] == ["10.0.0.7/32", "fd00::7/128"]
    for ip in result["ips"]:
        assert result["interfaces"][ip["interface"]] == result["interfaces"][1]
    assert result["interfaces"][1]["sandbox"] == "/n"
    assert {route["dst"] for route in result["routes"]} == {"0.0.0.0/0", "::/0"}


def test_the_family_is_named_until_0_4_0_only() -> None:
    assert [ip.get("version") for ip in result_of(ENDPOINT, "0.4.0", "/n", None)["ips"]] == ["4", "6"]
    assert [ip.get("version") for ip in result_of(ENDPOINT, "1.0.0", "/n", None)["ips"]] == [None, None]


def test_what_earlier_plugins_made_stays_in_front() -> None:
    previous = {
        "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/n"}],
        "ips": [{"version": "4", "address": "192.0.2.3/24", "interface": 1}],
        "routes": [{"dst": "192.0.2.0/24"}],
        "dns": {"nameservers": ["192.0.2.1"]},
    }
    result = result_of(ENDPOINT, "1.0.0", "/n", previous)
    assert [i["name"] for i in result["interfaces"]] == ["br0", "net1", "lxc012345678901", "eth0"]
    assert result["ips"][0] == {"address": "192.0.2.3/24", "interface": 1}
    assert [ip["interface"] for ip in result["ips"]] == [1, 3, 3]
    assert result["routes"][0] == {"dst": "192.0.2.0/24"}
    assert result["dns"] == {"nameservers": ["192.0.2.1"]}


def test_an_interface_that_an_earlier_plugin_made_is_not_made_again() -> None:
    with pytest.raises(CniError, match="eth0"):
        refuse_taken_interface({"interfaces": [{"name": "eth0", "sandbox": "/n"}]}, "eth0")
    refuse_taken_interface({"interfaces": [{"name": "eth0"}]}, "eth0")  # the host's, not the container's


def test_check_compares_with_its_own_result() -> None:
    result = result_of(ENDPOINT, "1.1.0", "/n", None)
    assert mismatch(ENDPOINT, result) == ""
    assert "fd00::7" in mismatch(ENDPOINT, {**result, "ips": result["ips"][:1]})
    assert "eth0" in mismatch(ENDPOINT, {**result, "interfaces": []})
    with pytest.raises(CniError, match="prevResult"):
        mismatch(ENDPOINT, None)


_element = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "address", "mac"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["interfaces", "ips", "routes", "dns"]), _element))
def test_any_previous_result_is_kept_or_refused(previous: dict[str, Any]) -> None:
    for use in (
        lambda: result_of(ENDPOINT, "0.3.1", "/n", previous),
        lambda: mismatch(ENDPOINT, previous),
        lambda: refuse_taken_interface(previous, "eth0"),
    ):
        try:
            use()
        except CniError as error:
            assert error.code is Code.CONFIGURATION
