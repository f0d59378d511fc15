"""The data path's programs under BPF_PROG_TEST_RUN: packet in; verdict, packet out, events and map entries compared."""
