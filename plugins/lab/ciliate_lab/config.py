"""The section `lab`: written by `ciliate lab up` for the processes of the lab, not by users."""

from __future__ import annotations

from ciliate.plugin import Section


class LabConfig(Section):
    """What the kubelet of a node must know of its machine."""

    name: str = ""  # of the lab; empty: the plugin has nothing to do
    number: int = 0  # of the node; 0 in the operator
