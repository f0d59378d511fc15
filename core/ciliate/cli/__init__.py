"""The command line: `ciliate` for the cluster, `ciliate-dbg` for one node.

Here belong the frame (commands found by entry points, imported only when called) and the commands of the core itself.
Commands of a feature are in its plugin.
"""
