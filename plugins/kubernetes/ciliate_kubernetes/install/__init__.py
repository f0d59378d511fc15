"""Ciliate's own objects in a cluster: rendered, applied, changed, removed.

Here belongs what `ciliate install` and its relatives do to a cluster. Not here: commands (cli), custom resource
definitions (the operator makes them), what the installed processes do.
"""
