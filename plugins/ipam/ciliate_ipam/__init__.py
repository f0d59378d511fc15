"""IPAM: which node has which pod ranges, and which pod has which address.

Here belong the drivers `cluster-pool` and `host-scope`, the operator's handing out of ranges, the giving out of single
addresses (the service `ciliate.model.ipam.Ipam`) and this node's CiliumNode. Routes to the ranges, and devices that
carry the addresses, do not.
"""
