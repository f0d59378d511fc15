"""Contracts: the types that plugins share, one module a noun. No code that acts.

Here belong rows of tables (frozen msgspec structs), topics of events, layouts of BPF maps (numpy dtypes that
mirror bpf/include/ciliate/layouts.h) and kinds of objects. Not here: anything that opens, writes, waits or decides.
A stranger's package ships its own as `<package>.model`. The core imports `ciliate.model.base` and nothing else of it.
"""
