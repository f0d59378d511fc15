"""Commands about a whole cluster, be it a lab, a plain node or Kubernetes: status, config, plugins, version.

What differs between them is behind `ciliate.cli.cluster.Cluster`. Not here: commands about one process (showing.py).
"""
