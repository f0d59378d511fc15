"""A plain machine's processes: which there are, starting them from a fork server, keeping them running.

Here belong the plan (which plugin runs where), the supervisor and its fork server, control groups, and ciliate-hold.
Not here: what happens inside a process; that is the host in the core.
"""
