"""The plugin cni: makes a container's network, keeps its endpoint, and feeds the data path what it must know of it.

Here belong the CNI protocol (wire, netconf, server, verbs), endpoints and their devices (endpoints, attach, netlink,
removal), the node's own device (host), the programs that all of them use (datapath) and conntrack's housekeeping.
Not here: addresses (plugin ipam), identities and verdicts (plugin policy). They meet in tables and `ciliate.model`.
"""
