"""Secrets as the store keeps them: their kind, and their data in and out of base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from ciliate.store import Kind, Object

SECRET = Kind("v1", "Secret", "secrets", True, has_status=False)
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
"""Keys of a leaf's Secret: its certificate, its key, and every CA that is to be trusted."""
CA_CERTIFICATES, CA_KEY, NEXT_KEY = "ca.crt", "ca.key", "next.key"
"""Keys of the CA's Secret. The first certificate signs; the others are trusted, and one of them is the next key's."""
NEXT_SINCE = "hubble.ciliate.io/next-since"
"""Annotation of the CA's Secret: since when the next CA is trusted, RFC 3339."""
MANAGED = {"app.kubernetes.io/managed-by": "ciliate"}


class SecretError(Exception):
    """A Secret does not hold what it should; the message says which, what, and how to mend it. It quotes no data."""


def read_data(secret: Object, *keys: str) -> dict[str, bytes]:
    """The values of some keys; one that is absent is empty. Raises SecretError."""
    data = secret.get("data") or {}
    found: dict[str, bytes] = {}
    for key in keys:
        try:
            found[key] = base64.b64decode(data.get(key) or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise SecretError(f"{called(secret)}: data[{key}] is not base64") from None
    return found


def make_secret(
    namespace: str, name: str, data: Mapping[str, bytes], kind: str, annotations: Mapping[str, str] | None = None
) -> Object:
    """A Secret object. kind: its `type`, as kubernetes.io/tls."""
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(MANAGED)}
    if annotations:
        meta["annotations"] = dict(annotations)
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": kind, "data": encoded}


def called(secret: Object) -> str:
    """A Secret as messages name it."""
    return f"Secret {secret['metadata']['namespace']}/{secret['metadata']['name']}"
