"""The relay: one observer for all nodes of a cluster.

Here belongs what finds the nodes (`peers`), keeps a connection to each (`connection`, `pool`), merges what they send
(`window`, `flows`) and serves it (`observer`). Not here: making flows, filtering them. Flows pass through as bytes.
"""
