"""The section `cni` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from ciliate.plugin import Section
from msgspec import Meta


class CniConfig(Section):
    """How runtimes find the plugin, and how it makes endpoints."""

    socket: str = ""
    """Where the shim finds the agent; empty: <run_dir>/cni.sock."""
    install: bool = True
    """Write the configuration list and the shim for the container runtime, once ready."""
    conf_dir: str = "/etc/cni/net.d"
    bin_dir: str = "/opt/cni/bin"
    conflist: str = "05-ciliate.conflist"
    network: str = "ciliate"
    """The network's name in the configuration list."""
    exclusive: bool = False
    """Rename other network configurations in conf_dir away (suffix .ciliate_bak)."""
    mtu: int = 0
    """Of pods' interfaces; 0: that of the device of the default route, else 1500."""
    default_namespace: str = "default"
    """The namespace of containers that no Kubernetes names."""
    pod_timeout: float = 1.0
    """Seconds that an ADD waits for the Pod object; then the endpoint starts as reserved:init."""
    policy_timeout: float = 10.0
    """Seconds that an ADD waits for the endpoint's policy to be in the kernel; then it is undone."""
    endpoint_objects: bool = True
    """Write a CiliumEndpoint for each pod: other nodes learn its identity from it."""
    endpoint_gc_interval: float = 300.0
    """Operator: seconds between two looks for CiliumEndpoints whose pod is gone; 0: they are left."""
    programs: str = ""
    """Folder of the compiled BPF objects; empty: the one that comes with Ciliate."""
    conntrack_interval: float = 10.0
    """Seconds between two collections of dead conntrack entries."""
    conntrack_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """The largest part of the conntrack table that one pod's flows may take; 1: no limit. Where several take much it is
    less, so that there is always room for others. New flows beyond are dropped (reason 245)."""
    tcx: Literal["auto", "off"] = "auto"
    """auto: where the kernel has tcx, pods' programs move to it in the background: 0.1 us less a packet."""
    tcx_delay: float = 2.0
    """Seconds without an ADD or DEL before programs are moved: each takes the kernel's rtnl lock for about 13 ms."""
