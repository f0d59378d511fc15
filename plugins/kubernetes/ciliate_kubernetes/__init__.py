"""A real cluster: the API server as the store, custom resource definitions, the operator's duties, installation.

Here belongs what knows Kubernetes' API: how objects are listed, watched and written there, schemas of our kinds, what a
cluster's operator does about nodes, pods and status, and the manifests that install us. Not here: what an object means
(policy, cni, ipam).
"""
