"""The plugin's half in the operator: what each policy has come to in the cluster, and identities that nobody uses.

Here belongs what one process does for all nodes. Not here: anything that a node needs to enforce policy.
"""
