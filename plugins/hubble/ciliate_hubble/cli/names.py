"""What the ends of a flow are called: pod, service, DNS name or address, with the port; and their identities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.words import RESERVED_NAMES


@dataclass(frozen=True)
class End:
    """One end, as shown."""

    host: str
    port: str  # empty: none
    identity: str

    @property
    def whole(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}" if self.port else self.host


def ends(flow: flow_pb2.Flow, translate: bool) -> tuple[End, End]:
    """Source and destination of a flow; without `translate` by their addresses."""
    ports = _ports(flow.l4)
    if not flow.HasField("IP"):
        hosts = (flow.ethernet.source, flow.ethernet.destination)
        ports = ("", "")
    elif translate:
        hosts = (
            _host(flow.source, flow.source_service, flow.source_names, flow.IP.source, bool(ports[0])),
            _host(
                flow.destination, flow.destination_service, flow.destination_names, flow.IP.destination, bool(ports[1])
            ),
        )
    else:
        hosts = (_address(flow.IP.source, bool(ports[0])), _address(flow.IP.destination, bool(ports[1])))
    return (
        End(hosts[0], ports[0], identity_text(flow.source.identity)),
        End(hosts[1], ports[1], identity_text(flow.destination.identity)),
    )


def identity_text(number: int) -> str:
    """A reserved identity's name, else `ID:number`."""
    return RESERVED_NAMES[number] if number < len(RESERVED_NAMES) else f"ID:{number}"


def _host(end: flow_pb2.Endpoint, service: flow_pb2.Service, names: Iterable[str], address: str, port: bool) -> str:
    if end.pod_name:
        return f"{end.namespace}/{end.pod_name}" if end.namespace else end.pod_name
    if service.name:
        return f"{service.namespace}/{service.name}" if service.namespace else service.name
    return ",".join(names) or _address(address, port)


def _address(address: str, port: bool) -> str:
    return f"[{address}]" if port and ":" in address else address


def _ports(l4: flow_pb2.Layer4) -> tuple[str, str]:
    kind = l4.WhichOneof("protocol")
    if kind not in ("TCP", "UDP", "SCTP"):
        return "", ""
    layer = getattr(l4, kind)
    return str(layer.source_port or ""), str(layer.destination_port or "")
