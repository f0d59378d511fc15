"""The operator, and the agents' objects, on a real API server without nodes: the tests play the kubelets."""
