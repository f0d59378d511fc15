"""Tests on real namespaces and a real kernel: root only. Figures of speed belong to tests/bench."""
