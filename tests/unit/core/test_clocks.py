"""Nothing is decided by the wall clock, which jumps: it only tells people when something was."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
WALL = re.compile(
    r"\btime\.time\b|\btime_ns\(|datetime\.(now|utcnow|today)|CLOCK_REALTIME|\b(gmtime|localtime|strftime)\("
)
TOLD = {
    "core/ciliate/host.py": "since when a process runs",
    "core/ciliate/routes.py": "the same",
    "core/ciliate/tables/file.py": "the name under which a corrupt file is kept",
    "plugins/hubble/ciliate_hubble/certificates/issuer.py": "from when to when a certificate is good, which is a date",
    "plugins/hubble/ciliate_hubble/cli/events.py": "what a person means by `--since 5m`",
    "plugins/hubble/ciliate_hubble/cli/observe.py": "the same",
    "plugins/hubble/ciliate_hubble/cli/times.py": "how a flow's time is written",
    "plugins/hubble/ciliate_hubble/ingest/clock.py": "what times of records are shown as",
    "plugins/hubble/ciliate_hubble/ingest/ingest.py": "when flows were, and losses",
    "plugins/hubble/ciliate_hubble/observer/agent_events.py": "when something happened to the agent",
    "plugins/hubble/ciliate_hubble/observer/reading.py": "when a reader lost flows",
    "plugins/hubble/ciliate_hubble/sources/notices.py": "when the agent started",
    "plugins/hubble/ciliate_hubble/relay/statuses.py": "when a node's status was told",
    "plugins/hubble/ciliate_hubble/relay/stream.py": "from when on a reader wants the flows of a node that comes later",
    "plugins/kubernetes/ciliate_kubernetes/nodes/admission.py": "times of a Node's condition",
    "plugins/lab/ciliate_lab/node/sandbox.py": "startedAt of a pod",
    "plugins/lab/ciliate_lab/node/status.py": "timestamps of a pod's status",
    "plugins/lab/ciliate_lab/supervisor.py": "since when a process runs, and the log",
    "plugins/node/ciliate_node/supervisor.py": "timestamps of the log",
    "plugins/objects/ciliate_objects/output.py": "ages of objects, for a table",
    "core/ciliate/leadership.py": "acquireTime and renewTime of a Lease: told, not gone by",
    "core/ciliate/model/policy_report.py": "renewTime of a report",
    "core/ciliate/recorder.py": "timestamps of an Event",
    "plugins/policy/ciliate_policy/operator/conditions.py": "lastTransitionTime of a condition",
    "plugins/policy/ciliate_policy/operator/identities.py": "since when an identity is unused",
    "plugins/store_local/ciliate_store_local/objects.py": "creationTimestamp and deletionTimestamp",
}
"""Files that may ask for the time of day, and what they tell by it."""


def test_only_what_is_told_to_people_comes_from_the_wall_clock() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for folder in ("core", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        if WALL.search(path.read_text())
    }
    assert asking - set(TOLD) == set(), "use time.monotonic(), or CLOCK_BOOTTIME for what outlives a process"
