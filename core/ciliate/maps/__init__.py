"""BPF maps: declared as values, made by one registry, read and written as numpy arrays.

Here belong what a map is before there is one (`spec`), one map's operations (`map`, `elements`, `batch`), and who owns
which (`registry`, `pins`, `ownership`). Not here: what any map means: that is `ciliate.model`'s and the plugins'.
"""
