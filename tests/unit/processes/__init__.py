"""Processes of a node: what crosses between them. Real sockets and files; some tests kill real processes."""
