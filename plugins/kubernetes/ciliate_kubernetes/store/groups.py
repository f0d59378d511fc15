"""Why the API server does not have a kind: nobody has registered it yet, or it has other versions of it."""

from __future__ import annotations

import msgspec
from ciliate.store import Kind, MissingKindError, NotFoundError, StoreError

from ciliate_kubernetes.store.errors import Asked
from ciliate_kubernetes.store.requests import Request, Requests
from ciliate_kubernetes.store.resources import resource


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: list[_Version]


_group = msgspec.json.Decoder(_Group)


async def missing(requests: Requests, kind: Kind, error: MissingKindError) -> MissingKindError:
    """The error with what the API server has instead."""
    name, slash, version = kind.api_version.partition("/")
    if not slash:
        return error
    try:
        found = _group.decode(await requests.call(Request("GET", f"/apis/{name}", Asked("get", f"API group {name}"))))
    except (MissingKindError, NotFoundError):
        versions = []
    except (StoreError, msgspec.MsgspecError):
        return error
    else:
        versions = [one.version for one in found.versions]
    if versions and version not in versions:
        return MissingKindError(
            f"the API server has {name} in version {', '.join(versions)}, and {kind.kind} is wanted in {version}:"
            " install a version of Ciliate that goes with the CRDs, or CRDs that go with this one"
        )
    return MissingKindError(
        f"the API server does not know {resource(kind)} yet. `ciliate operator` registers the CRDs of cilium.io when it"
        " starts: does it run?"
    )
