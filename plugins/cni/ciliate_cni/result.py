"""Results of ADD in the shape of each version, with what plugins before this one in a chain have made."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from ciliate.model.endpoint import Endpoint

from ciliate_cni.errors import CniError, Code

GATEWAY4 = "169.254.1.1"
GATEWAY6 = "fe80::1"
_LISTS = ("interfaces", "ips", "routes")


def result_of(endpoint: Endpoint, version: str, netns: str, previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """The result of an ADD: earlier plugins' interfaces, addresses and routes stay in front."""
    kept = _previous(previous or {}, version)
    offset = len(kept["interfaces"])
    pod: dict[str, Any] = {"name": endpoint.interface, "mac": endpoint.mac, "sandbox": netns}
    host: dict[str, Any] = {"name": endpoint.host_interface, "mac": endpoint.host_mac}
    if version == "1.1.0":
        pod["mtu"] = host["mtu"] = endpoint.mtu
    ips, routes = [], []
    for address, gateway, everywhere in (
        (endpoint.ipv4, GATEWAY4, "0.0.0.0/0"),
        (endpoint.ipv6, GATEWAY6, "::/0"),
    ):
        if address is not None:
            bits = ip_address(address).max_prefixlen
            ips.append({"address": f"{address}/{bits}", "gateway": gateway, "interface": offset + 1})
            routes.append({"dst": everywhere, "gw": gateway})
    return {
        "cniVersion": version,
        "interfaces": [*kept["interfaces"], host, pod],
        "ips": [_ip_in(version, ip) for ip in [*kept["ips"], *ips]],
        "routes": [*kept["routes"], *routes],
        "dns": kept["dns"],
    }


def refuse_taken_interface(previous: Mapping[str, Any] | None, interface: str) -> None:
    """Raise CniError if a plugin before this one has made the pod's interface."""
    for known in _previous(previous or {}, "1.1.0")["interfaces"]:
        if known.get("name") == interface and known.get("sandbox"):
            raise CniError(
                Code.CONFIGURATION,
                f"prevResult has an interface {interface} in the container already",
                "Ciliate makes the container's interface itself: put its plugin first in the chain",
            )


def mismatch(endpoint: Endpoint, previous: Mapping[str, Any] | None) -> str:
    """What of an endpoint the prevResult of a CHECK contradicts, or empty."""
    if previous is None:
        raise CniError(Code.CONFIGURATION, "CHECK needs prevResult: the result of ADD, which the runtime keeps")
    kept = _previous(previous, "1.1.0")
    named = {(i.get("name"), str(i.get("mac", "")).lower()) for i in kept["interfaces"] if i.get("sandbox")}
    if (endpoint.interface, endpoint.mac) not in named:
        return f"prevResult has no interface {endpoint.interface} with MAC {endpoint.mac} in the container"
    addresses = {str(ip_interface(ip["address"]).ip) for ip in kept["ips"]}
    missing = [a for a in (endpoint.ipv4, endpoint.ipv6) if a is not None and a not in addresses]
    return f"prevResult lacks the endpoint's address {missing[0]}" if missing else ""


def _ip_in(version: str, ip: Mapping[str, Any]) -> dict[str, Any]:
    """An element of ips: until 0.4.0 it names its family, since 1.0.0 it doesn't."""
    out = {key: value for key, value in ip.items() if key != "version"}
    if version.startswith("0."):
        return {"version": str(ip_interface(ip["address"]).version), **out}
    return out


def _previous(previous: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A prevResult, checked as far as it is passed on. Raises CniError."""
    kept: dict[str, Any] = {key: previous.get(key) or [] for key in _LISTS}
    kept["dns"] = previous.get("dns") or {}
    if not isinstance(kept["dns"], dict):
        raise CniError(Code.CONFIGURATION, "prevResult.dns must be an object")
    for key in _LISTS:
        if not isinstance(kept[key], list) or not all(isinstance(element, dict) for element in kept[key]):
            raise CniError(Code.CONFIGURATION, f"prevResult.{key} must be a list of objects")
    for number, ip in enumerate(kept["ips"]):
        try:
            ip_interface(ip["address"])
        except (KeyError, ValueError, TypeError) as error:
            raise CniError(
                Code.CONFIGURATION, f"prevResult.ips[{number}].address is no address with a prefix length: {ip!r}"
            ) from error
    return kept
