"""All kinds of cilium.io: a module a field of work, each with its schemas and its `DEFINITIONS`."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition
from ciliate_kubernetes.crds.kinds import (
    bgp,
    egress_gateway,
    endpoint,
    envoy,
    gateway,
    identity,
    load_balancer,
    local_redirect,
    network_driver,
    node,
    pod_ip_pool,
    policy,
)

DEFINITIONS: tuple[Definition, ...] = (
    *policy.DEFINITIONS,
    *endpoint.DEFINITIONS,
    *identity.DEFINITIONS,
    *node.DEFINITIONS,
    *egress_gateway.DEFINITIONS,
    *local_redirect.DEFINITIONS,
    *envoy.DEFINITIONS,
    *load_balancer.DEFINITIONS,
    *pod_ip_pool.DEFINITIONS,
    *bgp.DEFINITIONS,
    *gateway.DEFINITIONS,
    *network_driver.DEFINITIONS,
)
