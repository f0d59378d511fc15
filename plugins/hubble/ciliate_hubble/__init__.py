"""Hubble: what happened to packets, for people and programs.

Here belongs what makes flows of the data path's records, keeps recent ones, filters them and serves them over Hubble's
API; the relay that merges nodes; the commands and metrics of both. Not here: deciding about packets (policy), reading
the kernel's ring (the core), reading requests (dns, l7_envoy).
"""

import os

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")
# grpc reads this when it is imported. Its Python API can't be told the lowest version of TLS, only the suites of 1.2
# (those of 1.3 are all good). Our certificates are ECDSA: with only a suite for RSA ones, only 1.3 succeeds.
