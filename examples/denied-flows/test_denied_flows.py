"""The plugin's parts, without a node: what a line says of a record, and the file. No root is needed."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ciliate.model.base import pack_address
from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.event import EVENT, EventKind
from ciliate.model.identity import Identity
from ciliate.model.policy import Rule, RuleSet
from ciliate.model.reasons import DropReason
from ciliate_denied_flows.file import LineFile
from ciliate_denied_flows.flow import Names

WEB = Endpoint(id=7, generation=1, container_id="c", interface="eth0", netns="", namespace="shop", pod="web")
RULE = Rule(kind="NetworkPolicy", namespace="shop", name="web", uid="", generation=1, direction="ingress", index=0)
DEFAULT = Rule(kind="NetworkPolicy", namespace="shop", name="all", uid="", generation=1, direction="ingress", index=-1)
SETS = {5: RuleSet(id=5, rules=(RULE,)), 6: RuleSet(id=6, rules=(DEFAULT,))}
POLICY = EndpointPolicy(
    id=7, generation=1, identity=301, ingress_policy=1, egress_policy=2, revision=1, ingress_default=6
)
NAMES = Names({7: WEB}, {300: Identity(id=300, labels=("k8s:app=client",))}, SETS, {7: POLICY})


def record(**fields: Any) -> Any:
    """A record of a denied packet to the pod web."""
    made = np.zeros(1, EVENT)[0]
    made["kind"], made["reason"], made["protocol"] = EventKind.DROP, DropReason.POLICY_DENIED, 6
    made["source"] = np.frombuffer(pack_address("fd00::3"), "u1")
    made["destination"] = np.frombuffer(pack_address("10.0.0.2"), "u1")
    made["source_identity"], made["destination_endpoint"], made["destination_port"] = 300, 7, 80
    for name, value in fields.items():
        made[name] = value
    return made


def test_numbers_are_joined_with_the_names_that_tables_have() -> None:
    flow = NAMES.flow(record(rule_set_ingress=5))
    assert flow["reason"] == "Policy denied"
    assert flow["rules"] == ["NetworkPolicy shop/web spec.ingress[0]"]
    assert flow["source"]["address"] == "fd00::3"
    assert flow["source"]["labels"] == ("k8s:app=client",)
    assert flow["destination"] == {"address": "10.0.0.2", "port": 80, "namespace": "shop", "pod": "web", "labels": ()}


def test_without_a_rule_the_default_has_denied() -> None:
    assert NAMES.flow(record())["rules"] == ["NetworkPolicy shop/all (default deny, ingress)"]
    assert NAMES.flow(record(direction=1, rule_set_ingress=5))["rules"] == ["default-deny"]


def test_a_flow_is_json() -> None:
    assert json.loads(json.dumps(NAMES.flow(record())))["direction"] == "ingress"


def test_a_file_that_is_full_becomes_the_older_one(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "new" / "flows", max_size=10)
    for text in (b"first line\n", b"second line\n", b"third\n"):
        file.append(text)
    assert file.path.read_bytes() == b"third\n"
    assert file.path.with_name("flows.1").read_bytes() == b"second line\n"


def test_tail_gives_the_last_whole_lines(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "flows", max_size=10_000)
    file.append(b"".join(b"%04d" % number + b"x" * 495 + b"\n" for number in range(10)))
    assert [line[:4] for line in file.tail(2)] == [b"0008", b"0009"]
    assert len(file.tail(100)) == 10


def test_what_does_not_fit_is_not_written_in_part(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "flows", max_size=10_000)
    file.append(b"fits\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            file.append(b"does not fit\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.path.read_bytes() == b"fits\n"
