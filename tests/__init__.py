"""Tests, by what they need: unit (nothing), bpf and node (root), bench (root and quiet)."""
