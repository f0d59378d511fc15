"""A chunk of records made into flows: one copy of each record, then columns in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from ciliate.model.endpoint import ENDPOINTS_MAX
from ciliate.model.event import EVENT, EventKind, EventVerdict
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from numpy.typing import NDArray

from ciliate_hubble.columns import FLOW, EventType, Flows, TrafficDirection, Verdict
from ciliate_hubble.ends import Ends
from ciliate_hubble.ingest.join import EndJoin
from ciliate_hubble.ingest.meaning import EGRESS, INGRESS, codes_of, meanings
from ciliate_hubble.names import Names
from ciliate_hubble.rules import Rules

CHUNK = 1024
"""Records that are converted at once: so many that the columns stay in the CPU's cache."""

_RAW = np.dtype((np.void, EVENT.itemsize))


class Conversion:
    """Makes flows of records, in a buffer of its own that the next call overwrites."""

    def __init__(self, ends: Ends, names: Names, rules: Rules, join: EndJoin) -> None:
        self._ends = ends
        self._names = names
        self._rules = rules
        self._join = join
        self._flows = np.zeros(2 * CHUNK, FLOW)
        self._raw = np.ndarray((2 * CHUNK,), _RAW, self._flows, strides=(FLOW.itemsize,))
        self._sequence = np.arange(2 * CHUNK, dtype=np.uint64)
        self._meanings = meanings()

    def flows(self, records: NDArray[Any], clock: int, sequence: int) -> Flows:
        """Flows of at most CHUNK records. clock: wall time less CLOCK_MONOTONIC, ns. sequence: of the first flow."""
        codes = codes_of(records)
        codes = self._copy(records, codes)
        flows = self._flows[: len(codes)]
        flows["time"] += np.uint64(clock)
        flows["sequence"] = self._sequence[: len(codes)] + np.uint64(sequence)
        flows["family"] = _families(flows)
        flows["l7"] = 0
        self._mean(flows, codes)
        self._name(flows)
        _untranslate(flows)
        return flows

    def _copy(self, records: NDArray[Any], codes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Copy the records, those that are two flows twice; the codes of the flows."""
        raw = records.view(_RAW)
        double = self._meanings.double[codes]
        if not double.any():
            self._raw[: len(raw)] = raw
            return codes
        counts = double.astype(np.intp) + 1
        self._raw[: int(counts.sum())] = np.repeat(raw, counts)
        codes = np.repeat(codes, counts)
        codes[np.cumsum(counts)[double] - 1] += 1
        return codes

    def _mean(self, flows: Flows, codes: NDArray[np.intp]) -> None:
        """What the flows mean in Hubble's terms."""
        known = self._meanings
        socks = flows["kind"] == _SOCK
        match, rules = known.match[codes], known.rules[codes]
        for name in ("kind", "verdict", "direction", "reply"):
            flows[name] = getattr(known, name)[codes]
        self._deny_by_default(flows)
        match_egress = np.where(match == EGRESS, flows["match_egress"], 0)
        flows["match"] = np.where(match == INGRESS, flows["match_ingress"], match_egress)
        flows["rule_set_egress"] *= rules & EGRESS
        flows["rule_set_ingress"] *= rules >> 1
        if (flows["verdicts"] & _AUDITED).any():
            self._audit(flows)
        if socks.any():
            after = socks & (flows["point"] & 1 == 0) & (flows["point"] > 0)  # of the four points of translation
            flows["verdict"][after] = Verdict.TRANSLATED

    def _deny_by_default(self, flows: Flows) -> None:
        """Name the default that denied: where no entry of the policy map matched, no record does."""
        verdicts = flows["verdicts"]
        audited = (verdicts & _AUDITED) != 0
        rows = np.flatnonzero((flows["reason"] == _POLICY_DENIED) | audited)
        if not len(rows):
            return
        verdicts, audited, directions = verdicts[rows], audited[rows], flows["direction"][rows]
        for side, direction, own, bit in _SIDES:
            column = flows[f"rule_set_{side}"]
            spoke = ((verdicts & bit) != 0) & (audited | (directions == _HUBBLES[direction]))
            unnamed = rows[spoke & (column[rows] == 0)]
            endpoints = flows[f"{own}_endpoint"][unnamed]
            named = self._names.defaults[direction][np.where(endpoints < ENDPOINTS_MAX, endpoints, 0)]
            column[unnamed] = np.where(named == 0, self._rules.default_deny(direction), named)

    def _audit(self, flows: Flows) -> None:
        """Of a packet that was let pass though denied: the verdict that would have denied."""
        rows = np.flatnonzero(((flows["verdicts"] & _AUDITED) != 0) & (flows["kind"] == _POLICY_VERDICT))
        sets = flows["rule_set_egress"][rows] | flows["rule_set_ingress"][rows]  # one of them is 0
        denying = [number for number in np.unique(sets).tolist() if self._rules.denies(number)]
        flows["verdict"][rows[np.isin(sets, denying)]] = Verdict.AUDIT

    def _name(self, flows: Flows) -> None:
        """Join both ends; an identity that no record said is that of the end."""
        for side in ("source", "destination"):
            identities = flows[f"{side}_identity"]
            flows[f"{side}_end"] = indices = self._join.join(flows[f"{side}_endpoint"], identities, flows[side])
            unsaid = identities == 0
            if unsaid.any():
                identities[unsaid] = self._ends.identities[indices[unsaid]]


_AUDITED, _POLICY_DENIED = int(EventVerdict.AUDITED), int(DropReason.POLICY_DENIED)
_DROP, _SOCK, _POLICY_VERDICT = int(EventKind.DROP), int(EventKind.SOCK), int(EventType.POLICY_VERDICT)
"""Plain numbers: comparing a column with an enum's member takes numpy several times as long."""
_SIDES = (
    ("egress", Direction.EGRESS, "source", EGRESS),
    ("ingress", Direction.INGRESS, "destination", INGRESS),
)
_HUBBLES = {Direction.INGRESS: int(TrafficDirection.INGRESS), Direction.EGRESS: int(TrafficDirection.EGRESS)}


def _families(flows: Flows) -> NDArray[np.uint8]:
    ether_types = flows["ether_type"]
    families: NDArray[np.uint8] = (ether_types == 0x0800) * np.uint8(4) + (ether_types == 0x86DD) * np.uint8(6)
    drops = np.flatnonzero(flows["kind"] == _DROP)
    if len(drops):  # perhaps before the header was read: then there is no IP to speak of
        known = flows["source"][drops].any(axis=1) | flows["destination"][drops].any(axis=1)
        families[drops[~known]] = 0
    return families


def _untranslate(flows: Flows) -> None:
    """Let `source` be the address before translation, and `original_source` that after it; zeros: the same.

    Hubble shows the first as the flow's source and the second as source_xlated.
    """
    words = flows["original_source"].view(np.uint32)
    rows = np.flatnonzero(words[:, 0] | words[:, 2] | words[:, 3])  # no address of either family lacks all three
    if not len(rows):
        return
    before, after = flows["original_source"][rows], flows["source"][rows]
    flows["source"][rows] = before
    flows["original_source"][rows] = np.where((before == after).all(axis=1)[:, None], 0, after)
