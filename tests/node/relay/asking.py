"""Asks a node's server for a flow, as a program of its own: grpc's threads stay in the namespace they began in.

nsenter --net=NAMESPACE python -m tests.node.relay.asking ADDRESS SERVER_NAME < certificates as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub


def ask(netns: Path, address: str, name: str, certificates: Mapping[str, bytes]) -> str:
    """What the server says to a client in a namespace: `answered`, or the code of a refusal. No `ca.crt`: plaintext."""
    command = ["nsenter", f"--net={netns}", sys.executable, "-m", "tests.node.relay.asking", address, name]
    given = json.dumps({key: text.decode() for key, text in certificates.items()})
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def _channel(address: str, name: str, given: dict[str, str]) -> grpc.Channel:
    if not given:
        return grpc.insecure_channel(address)
    pair = [given[key].encode() if key in given else None for key in ("tls.key", "tls.crt")]
    credentials = grpc.ssl_channel_credentials(given["ca.crt"].encode(), *pair)
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])


def main() -> None:
    """Print the answer."""
    address, name = sys.argv[1:]
    with _channel(address, name, json.load(sys.stdin)) as channel:
        try:
            list(ObserverStub(channel).GetFlows(GetFlowsRequest(number=1), timeout=5))
        except grpc.RpcError as error:
            print(error.code().name)
        else:
            print("answered")


if __name__ == "__main__":
    main()
