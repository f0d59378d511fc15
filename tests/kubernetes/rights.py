"""Rights of our service accounts: those that the rendered roles grant, and those that the API server saw used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ciliate.store import Object


class Right(NamedTuple):
    """What one account may do, or did."""

    account: str
    verb: str
    group: str
    resource: str  # with its subresource, as pods/status
    everywhere: bool  # by a ClusterRole, or outside of our namespace


def granted(objects: Iterable[Object]) -> set[Right]:
    """All rights that roles among an installation's objects give to its accounts, be it on objects of some names."""
    found = list(objects)
    roles = {(o["kind"], o["metadata"]["name"]): o["rules"] for o in found if o["kind"] in ("Role", "ClusterRole")}
    rights = set()
    for binding in (o for o in found if o["kind"].endswith("Binding")):
        role = binding["roleRef"]
        for rule in roles[role["kind"], role["name"]]:
            assert "nonResourceURLs" not in rule, f"not understood here: {rule}"
            rights |= {
                Right(subject["name"], verb, group, resource, role["kind"] == "ClusterRole")
                for subject in binding["subjects"]
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
            }
    return rights


def used(events: Iterable[Mapping[str, Any]], namespace: str) -> set[Right]:
    """Rights without which requests of our accounts would have been refused. Refused ones are not among them."""
    prefix = f"system:serviceaccount:{namespace}:"
    found = set()
    for event in events:
        user, target = event["user"]["username"], event.get("objectRef") or {}
        notes = event.get("annotations", {})
        if not user.startswith(f"{prefix}ciliate") or notes.get("authorization.k8s.io/decision") != "allow":
            continue
        resource = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
        everywhere = "ClusterRole" in notes.get("authorization.k8s.io/reason", "")
        for verb in _verbs(event):
            found.add(Right(user.removeprefix(prefix), verb, target.get("apiGroup", ""), resource, everywhere))
    return found


def _verbs(event: Mapping[str, Any]) -> Iterable[str]:
    """What a request needs: who lists may be streamed to, and who applies what is not there creates it."""
    verb = event["verb"]
    if verb in ("list", "watch"):
        return ("list", "watch")
    created = verb == "patch" and event.get("responseStatus", {}).get("code") == 201
    return ("patch", "create") if created else (verb,)


def refused(events: Iterable[Mapping[str, Any]], namespace: str) -> set[str]:
    """What our accounts asked for and may not do."""
    prefix = f"system:serviceaccount:{namespace}:ciliate"
    return {
        f"{event['user']['username']} may not {event['verb']} {event['objectRef']}"
        for event in events
        if event["user"]["username"].startswith(prefix)
        and event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    }
