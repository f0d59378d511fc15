"""The store driver `local`: objects in Kubernetes form, kept in one SQLite file, for one machine.

Here belong the file, its change log, the rules that the API server would enforce (names, generations, finalizers,
conflicts) and the waking of watchers in other processes. What an object means does not belong here, nor does anything
that a plugin could see of the driver: plugins know `ciliate.store` alone.
"""
