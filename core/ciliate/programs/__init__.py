"""BPF programs: an object file becomes a loaded, pinned set; a program of it is attached, run by a test, replaced.

Here belong libbpf's binding, loading and pinning (`object`, `set`), what one program can do (`program`) and the attach
kinds (`clsact`, `tcx`). Not here: C text (bpf/), which program goes where (the plugins), maps (`ciliate.maps`).
"""
