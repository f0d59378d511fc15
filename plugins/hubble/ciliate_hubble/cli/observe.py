"""`ciliate hubble observe`: flows."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from ciliate_hubble.api import observer_pb2, observer_pb2_grpc
from ciliate_hubble.cli.colours import colours
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.files import read_answers
from ciliate_hubble.cli.filters import flow_filters
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.printers import PRINTERS, Style, json_line, show
from ciliate_hubble.cli.request import get_flows_request, last_value, output_format, switched
from ciliate_hubble.cli.settings import server_settings
from ciliate_hubble.cli.times import layout


def observe_flows(given: Sequence[Given]) -> None:
    """Print flows. Raises CommandError."""
    output = output_format(given)
    style = flow_style(given)
    request = get_flows_request(given, time.time_ns())
    if switched(given, "print-raw-filters"):
        print_filters(given)
        return
    printer = PRINTERS[output](style)
    if path := last_value(given, "input-file"):
        _check_for_file(given, request)
        for answer in read_answers(path, request):
            show(printer, answer, style.silent)
        printer.end()
        return
    with connected(server_settings(given)) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        try:
            for answer in server.stream(stub.GetFlows, request):
                show(printer, answer, style.silent)
                if request.follow:
                    sys.stdout.flush()
        finally:
            printer.end()


def _check_for_file(given: Sequence[Given], request: observer_pb2.GetFlowsRequest) -> None:
    if request.follow:
        raise UsageError("--input-file and --follow can't be combined")
    if request.whitelist or request.blacklist:
        raise UsageError(
            "--input-file can't be combined with filters, which only a server judges: give them with -o json"
        )
    if not any(flag.name in ("last", "first") for flag in given):
        request.number = 0  # a file is shown whole


def flow_style(given: Sequence[Given]) -> Style:
    """How the flags say that flows are printed. Raises UsageError."""
    return Style(
        colours=colours(last_value(given, "color", "auto")),
        time=layout(last_value(given, "time-format", "StampMilli")),
        nodes=switched(given, "print-node-name"),
        policies=switched(given, "print-policy-names"),
        rules=switched(given, "rule"),
        translate=switched(given, "ip-translation", True) and not switched(given, "numeric"),
        silent=switched(given, "silent-errors"),
    )


def print_filters(given: Sequence[Given]) -> None:
    """Print the filters as the real program does: YAML, with a FlowFilter in JSON each."""
    allowed, denied = flow_filters(given)
    if not allowed and not denied:
        print("{}")
    for name, filters in (("allowlist", allowed), ("denylist", denied)):
        if filters:
            print(f"{name}:")
        for each in filters:
            text = json_line(each).replace("'", "''")
            print(f"    - '{text}'")
