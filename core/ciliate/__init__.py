"""Ciliate's host: what every plugin stands on, and nothing of any feature.

Here belong: finding and running plugins, configuration, tables, events, BPF maps and programs, the store's interface,
the API socket, the command line. Not here: what a policy, an address or a flow means; that is a plugin's.
"""

__version__ = "0.1.0"
