"""The kernel's own interfaces: bpf(2), bpffs, BTF, and what this kernel can do.

Here belongs what speaks to the kernel in the kernel's words and knows nothing of Ciliate's maps or programs.
Not here: typed maps (`ciliate.maps`), program sets and where they are attached (`ciliate.programs`).
"""
