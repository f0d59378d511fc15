"""The driver `sockets` of `ciliate.peers`: tables, events and the data path's batches between a node's processes.

There is no broker: each process leaves a card in <run_dir>/directory/, and whoever wants something connects to it.
Batches go through a ring in shared memory instead.
"""
