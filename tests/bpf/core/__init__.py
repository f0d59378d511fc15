"""The core's own binding to the kernel: maps, registry, program sets, counters, reconciler, drain, probes, attach."""
