"""Hubble's metrics: counters of flows under Hubble's names, with its options of labels.

Here belongs what is counted and under which labels. Batches are grouped by numpy; only a group that has not been met
before becomes text. Not here: serving (the core), and counters of packets (the agent's).
"""
