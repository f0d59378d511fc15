"""Certificates for Hubble's servers and clients: a CA in the store, what it signs, and how a process gets its own.

Here belongs everything between the Secrets in the store and grpc's credentials. The operator makes the Secrets
(`issuer`) and is the only one that touches the CA's key; every other process reads one Secret, its own (`material`), or
files that somebody else provides. Not here: who listens where (serving), who calls whom (relay).
"""
