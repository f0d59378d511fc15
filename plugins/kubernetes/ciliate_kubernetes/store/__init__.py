"""The store driver `kubernetes`: the objects of a cluster, as its API server has them.

Here belong how requests are made and as whom, how objects are listed, watched and written, and what each refusal means.
What an object means does not belong here, nor does anything that a plugin could see of the driver: plugins know
`ciliate.store` alone. Configuration, credentials and the connection are those of the package `kubernetes` (its `aio`
half); objects are decoded from JSON by `ciliate.fields`.
"""
