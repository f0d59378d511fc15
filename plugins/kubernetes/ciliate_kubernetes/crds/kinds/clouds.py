"""What the clouds' modes of IPAM keep in a CiliumNode."""

from __future__ import annotations

from ciliate_kubernetes.crds.schema import Schema, array, boolean, fields, integer, mapping, string

YES_NO = string(one_of=("Yes", "No"))


def _names(*names: str) -> dict[str, Schema]:
    return {name: string() for name in names}


def eni_spec() -> Schema:
    """AWS: how interfaces are chosen and made."""
    return fields(
        {
            **_names("instance-type", "node-subnet-id", "vpc-id", "availability-zone"),
            "first-interface-index": integer(least=0),
            **{name: array(string()) for name in ("security-groups", "subnet-ids")},
            **{name: mapping(string()) for name in ("security-group-tags", "subnet-tags", "exclude-interface-tags")},
            "delete-on-termination": boolean(),
            "use-primary-address": boolean(),
            "disable-prefix-delegation": boolean(),
        }
    )


def eni_status() -> Schema:
    """AWS: interfaces by id."""
    interface = fields(
        {
            **_names("id", "ip", "mac", "availability-zone", "description", "public-ip"),
            "number": integer(),
            "subnet": fields(_names("id", "cidr")),
            "vpc": fields({**_names("id", "primary-cidr"), "cidrs": array(string())}),
            **{name: array(string()) for name in ("addresses", "prefixes", "ipv6-prefixes", "security-groups")},
            "tags": mapping(string()),
        }
    )
    return fields({"enis": mapping(interface)})


def azure_spec() -> Schema:
    """Azure: which interface."""
    return fields(_names("interface-name"))


def azure_status() -> Schema:
    """Azure: interfaces."""
    interface = fields(
        {
            **_names("id", "ip", "name", "mac", "state", "security-group", "gateway"),
            "addresses": array(fields(_names("ip", "state"))),
            "subnet": fields(_names("id", "cidr")),
        }
    )
    return fields({"interfaces": array(interface)})


def alibaba_spec() -> Schema:
    """Alibaba Cloud: how interfaces are chosen and made."""
    return fields(
        {
            **_names("instance-type", "availability-zone", "vpc-id", "cidr-block"),
            **{name: array(string()) for name in ("vswitches", "security-groups")},
            **{name: mapping(string()) for name in ("vswitch-tags", "security-group-tags")},
        }
    )


def alibaba_status() -> Schema:
    """Alibaba Cloud: interfaces by id."""
    interface = fields(
        {
            **_names("network-interface-id", "mac-address", "type", "instance-id", "zone-id", "primary-ip-address"),
            "security-groupids": array(string()),
            "vpc": fields({**_names("vpc-id", "cidr", "ipv6-cidr"), "secondary-cidrs": array(string())}),
            "vswitch": fields(_names("vswitch-id", "cidr", "ipv6-cidr")),
            "private-ipsets": array(fields({"private-ip-address": string(), "primary": boolean()})),
            "tags": mapping(string()),
        }
    )
    return fields({"enis": mapping(interface)})
