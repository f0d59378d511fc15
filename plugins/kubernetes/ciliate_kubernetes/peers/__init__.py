"""What a node's agent knows of the rest of the cluster: whose addresses those are that are not on this node.

Here belongs how CiliumEndpoints, CiliumNodes and the API server's EndpointSlice become claims on addresses. Routes and
tunnels to other nodes do not belong here, nor does anything that writes those objects.
"""
