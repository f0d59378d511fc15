"""L7 records as flows: one at a time, as they come so, and few beside packets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog
from ciliate.model.base import pack_address
from ciliate.model.l7 import L7Record, L7Type, L7Verdict

from ciliate_hubble.columns import FLOW, EventType, Flows, Reply, TrafficDirection, Verdict
from ciliate_hubble.ends import Ends
from ciliate_hubble.ingest.join import EndJoin
from ciliate_hubble.l7 import L7Entries
from ciliate_hubble.redaction import Redaction

_VERDICTS = {
    L7Verdict.FORWARDED: Verdict.FORWARDED,
    L7Verdict.DENIED: Verdict.DROPPED,
    L7Verdict.ERROR: Verdict.ERROR,
    L7Verdict.REDIRECTED: Verdict.REDIRECTED,
}


log = structlog.get_logger("hubble")


class RequestConversion:
    """Makes flows of L7 records. What can't be one is counted in `malformed`."""

    def __init__(self, ends: Ends, join: EndJoin, entries: L7Entries, redaction: Redaction) -> None:
        self._ends = ends
        self._join = join
        self._entries = entries
        self._redaction = redaction
        self.malformed = 0

    def flows(self, records: Sequence[L7Record], sequence: int) -> Flows:
        """A row for each record that can be one. sequence: of the first flow."""
        flows = np.zeros(len(records), FLOW)
        count = 0
        for record in records:
            try:
                self._fill(flows[count], record)
                number = self._entries.add(self._redaction.redacted(record), sequence + count)
            except (ValueError, OverflowError) as error:
                flows[count : count + 1] = np.zeros(1, FLOW)
                self.malformed += 1
                if self.malformed == 1:
                    log.warning("an L7 record is no flow: its emitter should be mended", error=str(error))
                continue
            flows["sequence"][count] = sequence + count
            flows["l7"][count] = number
            count += 1
        flows = flows[:count]
        for side in ("source", "destination"):
            identities = flows[f"{side}_identity"]
            flows[f"{side}_end"] = self._join.join(flows[f"{side}_endpoint"], identities, flows[side])
            unsaid = identities == 0
            identities[unsaid] = self._ends.identities[flows[f"{side}_end"][unsaid]]
        return flows

    def forget(self, left: int) -> None:
        """Drop the records of flows before a sequence number."""
        self._entries.forget(left)

    def _fill(self, flow: np.void, record: L7Record) -> None:
        """Raises ValueError or OverflowError."""
        flow["time"] = record.time
        flow["kind"] = EventType.L7
        flow["verdict"] = _VERDICTS[record.verdict]
        flow["direction"] = TrafficDirection.INGRESS if record.ingress else TrafficDirection.EGRESS
        flow["reply"] = Reply.YES if record.type == L7Type.RESPONSE else Reply.NO
        flow["protocol"] = record.protocol
        flow["proxy_port"] = record.proxy_port
        flow["rule_set_ingress" if record.ingress else "rule_set_egress"] = record.rule_set
        flow["family"] = 6 if ":" in record.source else 4
        for side in ("source", "destination"):
            flow[side] = np.frombuffer(pack_address(getattr(record, side)), np.uint8)
            for name in ("port", "endpoint", "identity"):
                flow[f"{side}_{name}"] = getattr(record, f"{side}_{name}")
