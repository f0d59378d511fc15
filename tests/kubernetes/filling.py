"""Many objects in a cluster, in seconds: written to its etcd as the API server would, for it to find there."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
from ciliate.store import Kind

from tests.kubernetes.control_plane import ControlPlane

_AT_ONCE = 100
_STORAGE = {"nodes": "minions"}
"""Builtin resources that etcd has under other names."""
_SEND = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin.buffer:
    connection.request("POST", "/v3/kv/txn", line)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
"""


def fill(plane: ControlPlane, objects: Iterable[tuple[Kind, Mapping[str, Any]]]) -> None:
    """Write objects; those that are there are replaced. What the API server would set is set; nothing is checked."""
    command = [*plane.enter, sys.executable, "-c", _SEND, str(plane.etcd_port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for batch in _batches(objects):
            puts = [
                {"requestPut": {"key": _encoded(_path(kind, obj).encode()), "value": _encoded(_stored(kind, obj))}}
                for kind, obj in batch
            ]
            process.stdin.write(json.dumps({"success": puts}).encode() + b"\n")
        process.stdin.close()
        assert process.wait(60) == 0


def _batches(objects: Iterable[tuple[Kind, Mapping[str, Any]]]) -> Iterator[list[tuple[Kind, Mapping[str, Any]]]]:
    left = iter(objects)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch


def _path(kind: Kind, obj: Mapping[str, Any]) -> str:
    group, slash, _ = kind.api_version.partition("/")
    builtin = not slash or group.endswith(".k8s.io")
    parts = ["registry", _STORAGE.get(kind.plural, kind.plural)] if builtin else ["registry", group, kind.plural]
    if kind.namespaced:
        parts.append(obj["metadata"]["namespace"])
    return "/" + "/".join([*parts, obj["metadata"]["name"]])


def _stored(kind: Kind, obj: Mapping[str, Any]) -> bytes:
    meta = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, **obj["metadata"]}
    return msgspec.json.encode({**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta})


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
