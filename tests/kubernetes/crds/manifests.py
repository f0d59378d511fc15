"""Objects that use every field of their kind."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]
SELECTOR: Manifest = {
    "matchLabels": {"k8s:app": "web", "io.kubernetes.pod.namespace": "x", "empty": ""},
    "matchExpressions": [
        {"key": "any:tier", "operator": "In", "values": ["a", "b"]},
        {"key": "reserved:host", "operator": "DoesNotExist"},
    ],
}
CIDR_SETS: list[Manifest] = [
    {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
    {"cidr": "fd00::/8"},
    {"cidrGroupRef": "group"},
    {"cidrGroupSelector": SELECTOR, "except": ["192.0.2.0/24"]},
]
GROUPS: list[Manifest] = [
    {"aws": {"labels": {"a": "b"}, "securityGroupsIds": ["sg-1"], "securityGroupsNames": ["n"], "region": "eu"}}
]
SECRET = {"namespace": "default", "name": "tls"}
TLS = {"secret": SECRET, "trustedCA": "ca.crt", "certificate": "tls.crt", "privateKey": "tls.key"}
HTTP: Manifest = {
    "path": "/a.*",
    "method": "GET",
    "host": "a.example",
    "headers": ["X-A: b", "X-C"],
    "headerMatches": [
        {"name": "x-token", "secret": SECRET, "mismatch": "REPLACE"},
        {"name": "x-other", "value": "v", "mismatch": "LOG"},
    ],
}
PORTS: list[Manifest] = [
    {"port": "80", "protocol": "TCP"},
    {"port": "8000", "endPort": 9000, "protocol": "TCP"},
    {"port": "0x50"},
    {"port": "http-alt", "protocol": "ANY"},
    {"port": "0", "protocol": "SCTP"},
    {"protocol": "VRRP"},
]
PORT_RULES: list[Manifest] = [
    {"ports": PORTS},
    {"ports": PORTS[:1], "rules": {"http": [HTTP, {}]}},
    {"ports": PORTS[:1], "rules": {"kafka": [{"role": "produce", "topic": "t", "clientID": "c"}, {"apiKey": "fetch"}]}},
    {"ports": PORTS[:1], "rules": {"l7proto": "r2d2", "l7": [{"cmd": "READ"}]}},
    {"ports": PORTS[:1], "rules": {"http": []}},
    {"ports": PORTS[:1], "serverNames": ["a.example", "*.b.example"]},
    {"ports": PORTS[:1], "terminatingTLS": TLS, "originatingTLS": {"secret": SECRET}},
]
LISTENER = {"envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "envoy"}, "name": "listener", "priority": 7}
NAMES: list[Manifest] = [{"matchName": "a.example."}, {"matchPattern": "**.b-c_d.example"}, {"matchPattern": "*"}]
ICMPS: list[Manifest] = [
    {"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoReply"}, {"family": "IPv4", "type": "13"}]}
]


def _elements(side: str, deny: bool) -> list[Manifest]:
    """An element for each way of naming peers and ports; those that are empty mean something too."""
    found: list[Manifest] = [
        {},
        {f"{side}Endpoints": [SELECTOR, {}]},
        {f"{side}Endpoints": []},
        {f"{side}CIDR": ["10.0.0.0/8", "10.1.2.3", "fd00::1", "fd00::/8", "10.1.2.3/8"]},
        {f"{side}CIDRSet": CIDR_SETS},
        {f"{side}Entities": ["world", "cluster", "kube-apiserver", "world-ipv6", "none"]},
        {f"{side}Groups": GROUPS},
        {f"{side}Nodes": [SELECTOR]},
        {f"{side}Requires": []},
        {"icmps": ICMPS},
        {f"{side}Endpoints": [{}], f"{side}CIDR": []},
        {"toPorts": [{"ports": PORTS}] if deny else PORT_RULES},
    ]
    if side == "to":
        service = {"serviceName": "s", "namespace": "n"}
        found.append({"toServices": [{"k8sService": service}, {"k8sServiceSelector": {"selector": SELECTOR}}]})
        if not deny:
            dns = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": NAMES}}
            found += [{"toFQDNs": NAMES}, {"toPorts": [dns, {"ports": PORTS[:1], "listener": LISTENER}]}]
    if not deny:
        found.append({f"{side}Endpoints": [{}], "authentication": {"mode": "required"}})
    return found


def rule(**more: Any) -> Manifest:
    """A rule with all there is."""
    return {
        "endpointSelector": SELECTOR,
        "ingress": _elements("from", deny=False),
        "ingressDeny": _elements("from", deny=True),
        "egress": _elements("to", deny=False),
        "egressDeny": _elements("to", deny=True),
        "labels": [{"key": "a", "value": "b", "source": "k8s"}],
        "enableDefaultDeny": {"ingress": True, "egress": False},
        "description": "Who may talk to whom.",
        "log": {"value": "32 characters, printable: äöü €"},
        **more,
    }


def named(kind: str, version: str = "v2", namespace: str = "default", **parts: Any) -> Manifest:
    """An object called `all`."""
    metadata = {"name": "all", **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": f"cilium.io/{version}", "kind": kind, "metadata": metadata, **parts}


_NODE_RULE = {key: value for key, value in rule().items() if key != "endpointSelector"} | {"nodeSelector": SELECTOR}
_PORT = [{"port": "80", "protocol": "TCP", "name": "http"}]
WHOLE: list[Manifest] = [
    named("CiliumNetworkPolicy", spec=rule(), specs=[rule(), rule()]),
    named("CiliumClusterwideNetworkPolicy", namespace="", spec=_NODE_RULE, specs=[rule()]),
    named("CiliumCIDRGroup", namespace="", spec={"externalCIDRs": ["10.0.0.0/8", "fd00::/8"]}),
    named("CiliumCIDRGroup", "v2alpha1", "", spec={"externalCIDRs": ["10.0.0.0/8"]}),
    named(
        "CiliumNode",
        namespace="",
        spec={
            "instance-id": "i-1",
            "bootid": "b",
            "addresses": [{"type": "CiliumInternalIP", "ip": "10.0.0.1"}, {"type": "InternalIP", "ip": "fd00::1"}],
            "health": {"ipv4": "10.0.0.3", "ipv6": "fd00::3"},
            "ingress": {"ipv4": "10.0.0.4"},
            "encryption": {"key": 3},
            "ipam": {
                "podCIDRs": ["10.0.0.0/24", "fd00::/120"],
                "pool": {"10.0.0.9": {"owner": "default/web", "resource": "eni-1"}},
                "pools": {
                    "requested": [{"pool": "default", "needed": {"ipv4-addrs": 16}}],
                    "allocated": [{"pool": "default", "cidrs": ["10.1.0.0/27"], "allowFirstIP": "Yes"}],
                },
                "pre-allocate": 8,
                "static-ip-tags": {"a": "b"},
            },
            "eni": {"instance-type": "m5", "first-interface-index": 0, "subnet-tags": {"a": "b"}, "vpc-id": "v"},
            "azure": {"interface-name": "eth0"},
            "alibaba-cloud": {"vswitches": ["v"], "cidr-block": "10.0.0.0/8"},
        },
    ),
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": "4711"},
        "security-labels": {"k8s:app": "web", "k8s:io.kubernetes.pod.namespace": "default"},
    },
    named(
        "CiliumEndpoint",
        status={
            "id": 7,
            "identity": {"id": 4711, "labels": ["k8s:app=web"]},
            "networking": {"addressing": [{"ipv4": "10.0.0.9", "ipv6": "fd00::9"}], "node": "192.0.2.1"},
            "encryption": {"key": 0},
            "external-identifiers": {"container-id": "c", "k8s-pod-name": "all", "k8s-namespace": "default"},
            "named-ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "service-account": "default",
            "state": "ready",
            "policy": {
                "ingress": {"enforcing": True, "state": "enforcing", "allowed": [{"identity": 1, "dest-port": 80}]},
                "egress": {"enforcing": False},
            },
            "controllers": [{"name": "c", "configuration": {"interval": "1m"}, "status": {"success-count": 3}}],
            "log": [{"code": "ok", "anything": {"at": "all"}}],
        },
    ),
    named(
        "CiliumEnvoyConfig",
        spec={
            "services": [{"name": "s", "namespace": "n", "ports": [80], "listener": "l"}],
            "backendServices": [{"name": "b", "number": ["80", "http"]}],
            "resources": [{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "x": [{"y": {"z": 1}}]}],
            "nodeSelector": SELECTOR,
        },
    ),
    named(
        "CiliumEgressGatewayPolicy",
        namespace="",
        spec={
            "selectors": [{"podSelector": SELECTOR, "namespaceSelector": SELECTOR, "nodeSelector": {}}],
            "destinationCIDRs": ["0.0.0.0/0"],
            "excludedCIDRs": ["10.0.0.0/8"],
            "egressGateway": {"nodeSelector": SELECTOR, "egressIP": "192.0.2.9"},
            "egressGateways": [{"nodeSelector": SELECTOR, "interface": "eth1"}],
        },
    ),
    named(
        "CiliumLocalRedirectPolicy",
        spec={
            "redirectFrontend": {"serviceMatcher": {"serviceName": "s", "namespace": "default", "toPorts": _PORT}},
            "redirectBackend": {"localEndpointSelector": SELECTOR, "toPorts": _PORT},
            "skipRedirectFromBackend": True,
            "description": "d",
        },
    ),
    named(
        "CiliumLoadBalancerIPPool",
        namespace="",
        spec={
            "serviceSelector": SELECTOR,
            "blocks": [{"cidr": "192.0.2.0/24"}, {"start": "198.51.100.1", "stop": "198.51.100.9"}],
            "allowFirstLastIPs": "No",
            "disabled": True,
        },
    ),
    named(
        "CiliumPodIPPool",
        "v2alpha1",
        "",
        spec={
            "ipv4": {"cidrs": ["10.0.0.0/8"], "maskSize": 24, "pool": [{"cidr": "10.9.0.0/16"}]},
            "podSelector": SELECTOR,
            "allowLastIP": "Yes",
        },
    ),
    named("CiliumNodeConfig", spec={"nodeSelector": SELECTOR, "defaults": {"enable-ipv6": "true"}}),
    named("CiliumDatapathPlugin", "v2alpha1", "", spec={"attachmentPolicy": "Always", "what": {"ever": [1]}}),
    named(
        "CiliumBGPClusterConfig",
        namespace="",
        spec={
            "nodeSelector": SELECTOR,
            "bgpInstances": [
                {
                    "name": "a",
                    "localASN": 4294967295,
                    "localPort": 179,
                    "peers": [{"name": "p", "peerAddress": "fd00::1", "peerASN": 0, "peerConfigRef": {"name": "c"}}],
                }
            ],
        },
    ),
]
