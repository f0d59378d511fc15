"""The service peer.Peer: which nodes there are, and where their servers listen, for a relay.

Here belongs how CiliumNode objects become peers, and the service that tells of them. The other side, that follows this
service, is in `relay`.
"""
