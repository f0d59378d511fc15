"""The flags of `ciliate hubble`, under the headings of the help."""

from __future__ import annotations

from ciliate_hubble.cli.flags import Flag, Groups

TIME_FORMATS = (
    *("StampMilli", "YearMonthDay", "YearMonthDayHour", "YearMonthDayHourMinute", "RFC3339"),
    *("RFC3339Milli", "RFC3339Micro", "RFC3339Nano", "RFC1123Z"),
)
VERDICTS = ("FORWARDED", "DROPPED", "AUDIT", "REDIRECTED", "ERROR", "TRACED", "TRANSLATED")
EVENT_TYPES = {"drop": 1, "debug": 2, "capture": 3, "trace": 4, "policy-verdict": 5, "trace-sock": 7} | {
    "l7": 129,
    "agent": 130,
}
TRACE_POINTS = (
    *("to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy", "from-host"),
    *("from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto"),
)
AGENT_EVENTS = (
    *("unspecified", "message", "agent-started", "endpoint-regenerate-success", "endpoint-regenerate-failure"),
    *("policy-updated", "policy-deleted", "endpoint-created", "endpoint-deleted", "ipcache-upserted"),
    *("ipcache-deleted",),
)
"""Numbers of the sub types of `agent` in a filter: the place in this list."""

SELECTORS = (
    Flag("last", "The newest N flows; 20 if nothing else says which.", "N"),
    Flag("first", "The oldest N flows.", "N"),
    Flag("all", "All flows that are kept."),
    Flag("follow", "Go on with flows as they happen.", short="f"),
    Flag("since", "Flows from this time on: so long ago (90s, 1h30m), or a time in one of --time-format's.", "TIME"),
    Flag("until", "Flows up to this time.", "TIME"),
)


def _sides(noun: str, value: str, doc: str, short: str = "") -> tuple[Flag, ...]:
    """A filter on either end, on the source, and on the destination."""
    return (
        Flag(noun, f"{doc}, at either end.", value, short),
        Flag(f"from-{noun}", f"{doc}, at the source.", value),
        Flag(f"to-{noun}", f"{doc}, at the destination.", value),
    )


FILTERS = (
    Flag("not", "The next filter says which flows not to show."),
    *_sides("pod", "[NAMESPACE/]PREFIX", "A pod by the beginning of its name (of `default` without a namespace)"),
    *_sides("namespace", "NAMESPACE", "A Kubernetes namespace", "n"),
    *_sides("all-namespaces", "", "Any Kubernetes namespace", "A"),
    *_sides("service", "[NAMESPACE/]PREFIX", "A service by the beginning of its name"),
    *_sides("workload", "[KIND/]NAME", "What made the pod, as Deployment/web"),
    *_sides("label", "SELECTOR", "Labels: app=web, `tier in (a,b)`, reserved:world", "l"),
    *_sides("identity", "ID", "A security identity: a number, or a reserved name as world"),
    *_sides("ip", "ADDRESS", "An address or a CIDR"),
    *_sides("fqdn", "PATTERN", "A DNS name, as *.example.org"),
    *_sides("port", "PORT", "A port"),
    *_sides("cluster", "NAME", "A cluster"),
    Flag("snat-ip", "The source's address behind translation: an address or a CIDR.", "ADDRESS"),
    Flag("node-name", "The node that saw the flow: [CLUSTER/]NAME, where * stands for any text.", "PATTERN"),
    Flag("node-label", "Labels of that node.", "SELECTOR"),
    Flag("interface", "The device at which the flow was seen.", "NAME"),
    Flag(
        "type", f"{', '.join(EVENT_TYPES)}; behind a colon its sub type, as trace:to-endpoint.", "TYPE[:SUBTYPE]", "t"
    ),
    Flag("verdict", f"{', '.join(VERDICTS)}.", "VERDICT"),
    Flag("drop-reason-desc", "Why it was dropped, as POLICY_DENIED.", "REASON"),
    Flag("protocol", "tcp, udp, icmp, icmpv4, icmpv6, sctp, vrrp, igmp, dns, http, kafka.", "NAME"),
    Flag("tcp-flags", "All of these flags, as syn,ack.", "FLAGS"),
    Flag("traffic-direction", "ingress or egress, seen from the pod that the policy is about.", "DIRECTION"),
    Flag("ipv4", "Only IPv4.", short="4"),
    Flag("ipv6", "Only IPv6.", short="6"),
    Flag("ip-version", "none, v4 or v6.", "VERSION"),
    Flag("http-status", "A status code, or its beginning and +, as 404 or 5+.", "STATUS"),
    Flag("http-method", "An HTTP method.", "METHOD"),
    Flag("http-path", "A regular expression for the path.", "REGEX"),
    Flag("http-url", "A regular expression for the URL.", "REGEX"),
    Flag("http-header", "A header and its value.", "NAME:VALUE"),
    Flag("trace-id", "A trace id of W3C's traceparent.", "ID"),
    Flag("ip-trace-id", "An id that packets carry as an IPv4 option.", "ID"),
    Flag("uuid", "The flow of this id.", "UUID"),
    Flag("encrypted", "Only flows that WireGuard or IPsec carried."),
    Flag("unencrypted", "Only flows that neither carried."),
    Flag("cel-expression", "A CEL expression over `_flow`.", "EXPRESSION"),
    Flag("allowlist", "FlowFilters as JSON objects, beside those that flags make.", "JSON"),
    Flag("denylist", "FlowFilters as JSON objects: flows not to show.", "JSON"),
)
FILTER_NAMES = frozenset(flag.name for flag in FILTERS)

FORMATS = (
    Flag("output", "compact, dict, table, json, or jsonpb (the same).", "FORMAT", "o", "compact"),
    Flag("rule", "Under each flow that was judged, the policy and rule that decided; of a drop the reason."),
    Flag("print-policy-names", "Name the policies behind a policy verdict."),
    Flag("print-node-name", "Name the node that saw the flow."),
    Flag("time-format", f"{', '.join(TIME_FORMATS)}.", "NAME", "", "StampMilli"),
    Flag("color", "auto, always or never, for compact and dict.", "WHEN", "", "auto"),
    Flag("ip-translation", "Show names of pods and services instead of addresses.", "", "", "true"),
    Flag("numeric", "Show addresses."),
    Flag("field-mask", "Only these fields of a flow, by commas; with -o json.", "FIELDS"),
    Flag("use-default-field-masks", "Ask only for what the format shows.", "", "", "true"),
    Flag("input-file", "Flows that -o json has written, in place of a server's; - is standard input.", "FILE"),
    Flag("print-raw-filters", "Print the filters and ask nobody."),
    Flag("silent-errors", "Say nothing of nodes that are not available.", short="s"),
)
SERVER = (
    Flag("server", "host:port, tls://host:port or unix://path; by default the cluster's relay.", "ADDRESS"),
    Flag("name", "The lab whose relay is asked; by default CILIATE_LAB, or lab.", "NAME"),
    Flag("tls", "Use TLS."),
    Flag("tls-ca-cert-files", "CA certificates to trust, PEM, by commas.", "FILES"),
    Flag("tls-client-cert-file", "The client's certificate, PEM.", "FILE"),
    Flag("tls-client-key-file", "The client's key, PEM.", "FILE"),
    Flag("tls-server-name", "The name in the server's certificate, where it is not that of the address.", "NAME"),
    Flag("tls-allow-insecure", "Believe any certificate. Not recommended."),
    Flag("basic-auth-username", "A user name to send.", "NAME"),
    Flag("basic-auth-password", "Its password.", "WORD"),
    Flag("timeout", "How long to try to connect.", "DURATION", "", "5s"),
    Flag("request-timeout", "How long to wait for one answer; streams are not limited.", "DURATION", "", "12s"),
    Flag("config", "Flags of this group as a YAML file; default: ~/.config/hubble/config.yaml.", "FILE"),
)

OBSERVE: Groups = {"Which": SELECTORS, "Filters": FILTERS, "Format": FORMATS, "Server": SERVER}
_EVENT_FORMATS = ("output", "print-node-name", "time-format", "color")
EVENTS: Groups = {"Which": SELECTORS, "Format": tuple(f for f in FORMATS if f.name in _EVENT_FORMATS), "Server": SERVER}


def plain(formats: str, default: str) -> Groups:
    """The flags of a command that asks once and prints."""
    return {"Format": (Flag("output", f"{formats}.", "FORMAT", "o", default),), "Server": SERVER}
