"""What of an object a reader gets, and which objects match."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from ciliate.fields import ObjectDecoder, matches

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "web"},
        "managedFields": [{"manager": "kubelet"}],
    },
    "spec": {
        "nodeName": "a",
        "containers": [{"name": "one", "ports": [{"containerPort": 80}]}, {"name": "two"}, None],
        "volumes": None,
    },
}


def decoded(obj: Any, *fields: str) -> Any:
    return ObjectDecoder(fields).decode(msgspec.json.encode(obj))


def test_without_fields_all_is_there_but_who_wrote_it() -> None:
    whole = decoded(POD)
    metadata = {key: value for key, value in POD["metadata"].items() if key != "managedFields"}
    assert whole == {**POD, "metadata": metadata}


def test_with_fields_they_are_there_and_what_names_a_revision_and_no_more() -> None:
    assert decoded(POD, "metadata.labels", "spec.nodeName", "spec.containers[].ports", "status.podIP") == {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"}},
        "spec": {"nodeName": "a", "containers": [{"ports": [{"containerPort": 80}]}, {}, None]},
    }


@pytest.mark.parametrize(
    "fields",
    [("spec", "spec.nodeName"), ("spec.nodeName", "spec"), ("spec.containers[].ports", "spec.containers", "spec")],
)
def test_a_path_that_holds_another_one_counts(fields: tuple[str, ...]) -> None:
    assert decoded(POD, *fields)["spec"] == POD["spec"]


def test_a_list_that_is_wanted_whole_is_whole() -> None:
    spec = decoded(POD, "spec.containers[].ports", "spec.containers")["spec"]
    assert spec == {"containers": POD["spec"]["containers"]}


@pytest.mark.parametrize("spec", ["nonsense", 7, None, [], {"containers": {}}, {"containers": "many"}])
def test_a_field_of_another_shape_is_given_as_it_is(spec: Any) -> None:
    obj = {**POD, "spec": spec}
    assert decoded(obj, "spec.containers[].ports", "spec.nodeName")["spec"] == spec


@pytest.mark.parametrize("raw", [b"", b"{", b'"text"', b"[]", b"404 page not found"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    for fields in ((), ("spec.nodeName",)):
        with pytest.raises(msgspec.DecodeError):
            ObjectDecoder(fields).decode(raw)


def test_fields_and_labels_must_all_have_their_values() -> None:
    assert matches(POD, None) and matches(POD, {}) and matches(POD, {"spec.nodeName": "a", "spec.absent": ""})
    assert not matches(POD, {"spec.nodeName": "b"}) and not matches(POD, {"metadata.name.more": "x"})
    assert matches(POD, None, {"app": "web"}) and not matches(POD, None, {"app": "web", "tier": "front"})
    assert not matches({"metadata": None}, None, {"app": "web"})
    odd = {"spec": {"flag": True, "number": 7}}
    assert matches(odd, {"spec.flag": "true", "spec.number": "7"})
