"""Benchmarks: what Ciliate costs, as ratios against a named peer in the same run (DESIGN, section 11).

Here belong the load generator, the peers (bare veth, `bpf_redirect_peer` alone, the `ptp` CNI plugin), the paired
measurement with its interval, and one test a budget. Not here: tests of what is right or wrong without a clock (those
are in tests/node).

    settings    how long, how often, and the gates: the one place where a budget is a number
    build       C to programs and objects, once a session
    spaces      namespaces and the links between them that are measured
    cniplugin   calls of a CNI plugin, as a runtime makes them
    measure     one measurement: a server, a client, a figure
    harness     pairs, intervals, reports
    lab         Ciliate itself, through the lab's commands only
"""
