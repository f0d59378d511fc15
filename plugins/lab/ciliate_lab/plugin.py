"""The plugin `lab`: a kubelet on each node, and what a control plane does, in the operator."""

from __future__ import annotations

from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.plugin import Plugin

from ciliate_lab import network
from ciliate_lab.config import LabConfig
from ciliate_lab.node.kubelet import Kubelet
from ciliate_lab.node.registration import Registration
from ciliate_lab.place import LabPlace
from ciliate_lab.scheduler import OutsideRoutes, Scheduler


class LabPlugin(Plugin):
    """Stands in for Kubernetes in a lab."""

    name = "lab"
    description = "Runs the pods of a cluster on one machine, without Kubernetes."
    config = LabConfig
    essential = True
    roles = ("kubelet", "operator")

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        """Start what the role asks for."""
        config: LabConfig = context.config
        if not config.name:
            raise ValueError("lab.name is empty: this plugin is enabled by `ciliate lab up`, and by nothing else")
        lab = LabPlace(config.name)
        if context.node.role == "operator":
            scheduler = Scheduler(context)
            context.health.not_ready("the namespaces have not been made yet")
            context.spawn("scheduler", scheduler.run)
            context.spawn("nodes", scheduler.follow_nodes)
            context.spawn("pods", scheduler.follow_pods)
            context.spawn("routes", OutsideRoutes(context, lab).run)
            return
        host_ips = list(network.node_addresses(config.number))
        node = lab.node(config.number)
        context.spawn("node", Registration(context, node, host_ips).run)
        context.spawn("pods", Kubelet(context, node, host_ips).run)
