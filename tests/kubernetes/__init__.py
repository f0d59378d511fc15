"""Ciliate under Kubernetes' own programs: etcd, API server, controllers, scheduler, kubelet, containerd, kubectl.

Kubernetes is built from its Go module (tests/go/kubernetes) once, into a cache outside the tree. All of a cluster runs
in network and mount namespaces of the test's own.
"""
