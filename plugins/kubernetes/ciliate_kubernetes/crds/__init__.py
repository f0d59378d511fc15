"""Custom resource definitions: the kinds of cilium.io as an API server is told about them.

Here belong schemas, columns and names of all kinds (`kinds/`, a module a field of work), how the operator registers
them and how agents wait for them. Not here: what an object means, which is its feature's matter, and other groups.

A schema has every field that Cilium has, used by us or not: what a schema leaves out, the API server removes from
objects, and a policy without one of its fields may allow what it should not. Where a part is not known for
certain, everything is let through (`schema.anything`).
"""
