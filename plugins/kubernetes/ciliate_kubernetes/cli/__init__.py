"""Commands about a cluster that is reached through its API server, and how other commands reach into it.

Here belong `ciliate install` and `uninstall`, and the driver by which status, config, plugins and all that ask a node
find a cluster of a kubeconfig. Not here: what is installed (install).
"""
