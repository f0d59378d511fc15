"""The harness itself: a control plane that serves, and ends with nothing left."""

from __future__ import annotations

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.programs import VERSION


def test_the_api_server_serves_the_version_that_it_was_built_as(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl.json("version")["serverVersion"]["gitVersion"] == VERSION


def test_a_user_without_rights_is_refused(control_plane: ControlPlane) -> None:
    refused = control_plane.kubectl_as("nobody", ["system:authenticated"]).run("get", "pods")
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr


def test_the_api_server_may_end_and_come_back_with_all_that_it_had(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    control_plane.api_server.stop()
    assert not control_plane.serves()
    control_plane.start_api_server()
    assert control_plane.kubectl.json("get", "configmap", "kept")["data"] == {"a": "b"}
    control_plane.kubectl("delete", "configmap", "kept")
