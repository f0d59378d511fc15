"""The other processes of a node: who serves what, and following their tables and events.

There is no broker: each process leaves a card in <run_dir>/directory/, and whoever wants something connects to it.
"""
