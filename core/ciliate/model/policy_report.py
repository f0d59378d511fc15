"""A node's word on how far it has realised policy, and what the operator makes of it.

Each agent keeps one Lease, `ciliate-node-<node>`, whose annotation has one digest for each kind of policy: of all
objects of the kind that it has realised, each by uid and generation. A reader that follows the same kind knows the
digest of every state that it went through, and so which state a node is at: one small write a node says it for all
policies. A Lease and not the CiliumNode, because every node watches all CiliumNodes, and only the operator these.

The operator says the sum of it in the conditions of each policy: `Valid`, `Enforced`, `Unsupported`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ciliate.leadership import LEASE
from ciliate.store import Object, ObjectKey

PREFIX = "ciliate-node-"
POLICIES = "ciliate.io/policies"
"""Annotation of the Lease: kind to digest, as JSON."""
VALID, ENFORCED, UNSUPPORTED = "Valid", "Enforced", "Unsupported"
"""Types of a policy's conditions. Unsupported is there only if something in the policy is not enforced."""
EMPTY = "0" * 16
"""The digest of no objects: a report may leave a kind out."""
HISTORY = 65_536
_MASK = (1 << 64) - 1


def fingerprint(uid: str, generation: int) -> int:
    """64 bits for one state of one object."""
    text = f"{uid}/{generation}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class PolicyDigest:
    """The sum of fingerprints of a set of objects: of equal sets it is equal, in whatever order they came to be."""

    def __init__(self) -> None:
        self._parts: dict[object, int] = {}
        self._sum = 0

    def put(self, key: object, uid: str, generation: int) -> bool:
        """An object is in this state; whether that is new."""
        part = fingerprint(uid, generation)
        old = self._parts.get(key)
        self._parts[key] = part
        self._sum = (self._sum + part - (old or 0)) & _MASK
        return part != old

    def remove(self, key: object) -> bool:
        """An object is gone; whether it was there."""
        old = self._parts.pop(key, None)
        self._sum = (self._sum - (old or 0)) & _MASK
        return old is not None

    def __str__(self) -> str:
        return f"{self._sum:016x}"


class PolicyHistory:
    """What a reader has seen of one kind: its states in order, and since which state each object is as it is."""

    def __init__(self) -> None:
        self.since: dict[ObjectKey, int] = {}  # in the order of their last changes
        self.state = 0
        self._digest = PolicyDigest()
        self._states = {str(self._digest): 0}

    def put(self, key: ObjectKey, uid: str, generation: int) -> bool:
        """An object is in this state; whether that is new."""
        if not self._digest.put(key, uid, generation):
            return False
        self.since.pop(key, None)
        self.since[key] = self._advance()
        return True

    def remove(self, key: ObjectKey) -> None:
        """An object is gone."""
        if self._digest.remove(key):
            del self.since[key]
            self._advance()

    def state_of(self, digest: str) -> int | None:
        """Which state a node's digest is of; None if the reader has not seen it (yet)."""
        return self._states.get(digest)

    def _advance(self) -> int:
        self.state += 1
        self._states.pop(str(self._digest), None)
        self._states[str(self._digest)] = self.state
        if len(self._states) > HISTORY:
            del self._states[next(iter(self._states))]
        return self.state


def report_of(node: str, namespace: str, digests: Mapping[str, str]) -> Object:
    """The Lease by which a node says what it has realised. digests: by kind."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    annotations = {POLICIES: json.dumps(digests, sort_keys=True, separators=(",", ":"))}
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": PREFIX + node, "namespace": namespace, "annotations": annotations},
        "spec": {"holderIdentity": node, "renewTime": now},
    }


def read_report(lease: Mapping[str, Any]) -> dict[str, str]:
    """Digests by kind; empty if somebody has edited the Lease into something else."""
    try:
        found = json.loads(lease["metadata"]["annotations"][POLICIES])
    except (KeyError, TypeError, ValueError):
        return {}
    return {str(kind): str(digest) for kind, digest in found.items()} if isinstance(found, dict) else {}


def node_of(key: ObjectKey) -> str:
    """The node whose report a Lease is; empty: it is none."""
    return key.name.removeprefix(PREFIX) if key.name.startswith(PREFIX) else ""


def condition_of(policy: Mapping[str, Any], type_: str) -> dict[str, Any]:
    """A condition of a policy that speaks of its present generation; empty if there is none.

    A CRD that is newer than ours may prune observedGeneration: the message of Enforced says it too.
    """
    status = policy.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, dict) and one.get("type") == type_:
            told = re.match(r"generation (\d+) ", str(one.get("message", "")))
            observed = one.get("observedGeneration", int(told[1]) if told else 0)
            return one if observed == policy["metadata"].get("generation", 0) else {}
    return {}
