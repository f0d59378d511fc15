"""Material as grpc's credentials. Servers pick a new one up at each new connection, clients when they connect anew."""

from __future__ import annotations

import grpc

from ciliate_hubble.certificates.material import Keeper, Material


def server_credentials(keeper: Keeper, *, client_certificates: bool) -> grpc.ServerCredentials:
    """Credentials of a server, from material that is there. client_certificates: refuse clients without a good one."""
    if keeper.current is None:
        raise ValueError("there is no certificate yet: wait for keeper.changed(None)")
    latest = _Latest(keeper.current)

    def fetch() -> grpc.ServerCertificateConfiguration:
        """Called by a thread of grpc for each new connection."""
        return latest.of(keeper.current)

    return grpc.dynamic_ssl_server_credentials(latest.configuration, fetch, client_certificates)


class _Latest:
    """The configuration made of the newest material."""

    def __init__(self, material: Material) -> None:
        self.configuration = _configuration(material)
        self._material = material

    def of(self, material: Material | None) -> grpc.ServerCertificateConfiguration:
        if material is not None and material is not self._material:
            self._material, self.configuration = material, _configuration(material)
        return self.configuration


def client_credentials(material: Material) -> grpc.ChannelCredentials:
    """Credentials of a client, with its own certificate if there is one."""
    return grpc.ssl_channel_credentials(material.authorities, material.key or None, material.certificate or None)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authorities)
