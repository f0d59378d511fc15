"""Tests of the cni plugin that need no namespaces: parsing, results, labels, the frame, the server, the shim."""
