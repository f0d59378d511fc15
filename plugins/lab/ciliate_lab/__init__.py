"""A cluster on one machine, without Kubernetes: each node is a network namespace with an agent of its own.

Here belongs what stands in for a machine and for Kubernetes: namespaces, cgroups, mounts, the processes' supervisor,
the commands `ciliate lab`, and, in `node`, what a kubelet and a runtime do. Not here: anything that a real cluster
needs. The agents, their CNI binary and their data path are the real ones and can't tell that they are in a lab.
"""
