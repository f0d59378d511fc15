"""Nodes of Kubernetes that wait for their network: how an agent says that it is there, and what the operator does then.

Not here: pod ranges and the CiliumNode itself, which are ipam's.
"""
