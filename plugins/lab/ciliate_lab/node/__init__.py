"""What a kubelet and a container runtime do on a node, for pods of the lab: the role `kubelet`.

Here belongs making a pod real (namespace, CNI call, process) and saying how it fares. Not here: anything of the data
path or of policy; pods get those through the CNI binary alone, as from any runtime.
"""
