"""What the plugin hubble does in the operator: it makes the certificates, and tells when they end."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from ciliate.context import Context

from ciliate_hubble.certificates.issuer import Issuer
from ciliate_hubble.certificates.names import leaves
from ciliate_hubble.certificates.rotation import Lives
from ciliate_hubble.config import HubbleConfig


def start(context: Context) -> None:
    """Start the issuer, unless somebody else makes the certificates."""
    config: HubbleConfig = context.config
    if not config.make_certificates:
        return
    lives = Lives(*map(_seconds, (config.ca_validity, config.certificate_validity, config.ca_handover)))
    wanted = leaves(context.node.cluster)
    issuer = Issuer(context.store, config.secrets_namespace, wanted, lives, context.health, context.log)
    ends = context.metrics.gauge(
        "ciliate_certificate_end_timestamp_seconds", "When the certificate of a Secret ends.", "secret"
    )

    def end_of(name: str) -> Callable[[], float]:
        return lambda: issuer.ends[name].timestamp() if name in issuer.ends else float("nan")

    for name in issuer.secrets:
        ends.labels(name).set_function(end_of(name))
    context.spawn("certificates", issuer.run)


def _seconds(number: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=number)
