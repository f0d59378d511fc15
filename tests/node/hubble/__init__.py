"""Hubble in a lab of two nodes, over mutual TLS through the relay, as the real `hubble` program sees it.

Where Go is missing the program can't be built: then our own generated client asks, and the same expectations hold. The
run's summary says which of the two it was.
"""
