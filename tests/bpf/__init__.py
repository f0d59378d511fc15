"""What needs root and the kernel's BPF, but no namespaces of pods: programs under BPF_PROG_TEST_RUN, maps, links."""
