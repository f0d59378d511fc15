"""Hubble: what happened to packets, for people and programs.

Here belongs what makes flows of the data path's records, keeps recent ones, filters them and serves them over Hubble's
API; the relay that merges nodes; the commands and metrics of both. Not here: deciding about packets (policy), reading
the kernel's ring (the core), reading requests (dns, l7_envoy).
"""
