"""How a server is found and reached: flags, environment, file; TLS; and what is said when it can't be."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from ciliate.cli.dispatch import CommandError
from ciliate_hubble.api import observer_pb2, observer_pb2_grpc
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.flags import UsageError, parse
from ciliate_hubble.cli.options import OBSERVE
from ciliate_hubble.cli.settings import ServerSettings, server_settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.hubble.serving import Serving

Settings = Callable[..., ServerSettings]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings of some flags, on a machine that says nothing else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HUBBLE_SERVER", raising=False)
    return lambda *words: server_settings(parse(words, OBSERVE)[0])


def test_a_flag_comes_before_the_environment_and_that_before_the_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".config/hubble/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("server: file:1\ntls: true\ntls-ca-cert-files: [a.crt, b.crt]\ntimeout: 3s\nport-forward: false\n")
    monkeypatch.setenv("HUBBLE_TIMEOUT", "2s")
    monkeypatch.setenv("HUBBLE_TLS_SERVER_NAME", "name")
    found = settings("--server", "flag:1")
    assert (found.server, found.timeout, found.server_name, found.tls) == ("flag:1", 2.0, "name", True)
    assert found.ca_files == (Path("a.crt"), Path("b.crt"))
    assert settings().server == "file:1"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--timeout", "soon"), "--timeout: 'soon' is no duration"),
        (("--timeout", "0s"), "--timeout: must be above 0"),
        (("--config", "/nowhere.yaml"), "--config: /nowhere.yaml can't be read"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(words: tuple[str, ...], problem: str, settings: Settings) -> None:
    with pytest.raises(UsageError, match=problem):
        settings(*words)


def test_a_wrong_variable_is_refused_by_its_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBLE_TLS", "perhaps")
    with pytest.raises(UsageError, match="HUBBLE_TLS: 'perhaps'"):
        settings()


def test_a_server_that_is_not_there_is_named_with_a_hint(settings: Settings) -> None:
    with (
        pytest.raises(CommandError, match=r"unix:///nowhere can't be reached within 0.2 s; is it running"),
        connected(settings("--server", "unix:///nowhere", "--timeout", "200ms")),
    ):
        pass


def test_a_scheme_that_nobody_knows_is_refused(settings: Settings) -> None:
    with (
        pytest.raises(UsageError, match="use host:port, tls://host:port or unix://path"),
        connected(settings("--server", "ftp://x")),
    ):
        pass


@dataclass
class Authority:
    """A CA of a test's own, and a folder for what it makes."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        certificate = self._builder(self._name, self._key, 1).add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = self._write("ca.crt", certificate.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, days: int = 1) -> tuple[Path, Path]:
        """A certificate for a name and the loopback address, and its key; with negative days one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = self._builder(subject, key, days).add_extension(names, False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.folder / f"{name}.key"
        path.write_bytes(private)
        return self._write(f"{name}.crt", certificate), path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[tuple[int, Serving]]:
    """A server with mutual TLS, as `instance.example.org`."""
    certificate, key = authority.issue("instance.example.org")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.certificate.read_bytes(), require_client_auth=True
    )
    serving = Serving("127.0.0.1:0", credentials)
    yield serving.port, serving
    serving.stop()


def _nodes(settings: ServerSettings) -> int:
    with connected(settings) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        return len(server.ask(stub.GetNodes, observer_pb2.GetNodesRequest()).nodes)


def _words(authority: Authority, port: int, *more: str) -> list[str]:
    certificate, key = authority.issue("client")
    files = ("--tls-client-cert-file", str(certificate), "--tls-client-key-file", str(key))
    return ["--server", f"tls://localhost:{port}", *files, *more]


def test_mutual_tls_with_the_name_in_the_servers_certificate(
    settings: Settings, authority: Authority, tls_server: tuple[int, Serving]
) -> None:
    trust = ("--tls-ca-cert-files", str(authority.certificate), "--tls-server-name", "instance.example.org")
    assert _nodes(settings(*_words(authority, tls_server[0], *trust))) == 4


@pytest.mark.parametrize("trust", [True, False])
def test_a_server_of_another_name_or_authority_is_not_believed(
    trust: bool, settings: Settings, authority: Authority, tls_server: tuple[int, Serving]
) -> None:
    name = ("--tls-server-name", "other.example.org") if trust else ("--tls-server-name", "instance.example.org")
    ca = ("--tls-ca-cert-files", str(authority.certificate)) if trust else ()
    with pytest.raises(CommandError, match="do its certificate and yours come from authorities"):
        _nodes(settings(*_words(authority, tls_server[0], *name, *ca, "--timeout", "500ms")))


def test_any_certificate_is_believed_where_that_is_asked_for(
    settings: Settings, authority: Authority, tls_server: tuple[int, Serving]
) -> None:
    assert _nodes(settings(*_words(authority, tls_server[0], "--tls-allow-insecure"))) == 4


def test_a_client_certificate_needs_its_key(settings: Settings, authority: Authority) -> None:
    with pytest.raises(UsageError, match="go together"), connected(settings(*_words(authority, 1)[:4])):
        pass


def test_a_user_name_is_sent_as_basic_auth(settings: Settings, tmp_path: Path) -> None:
    serving = Serving(f"unix:{tmp_path}/s")
    words = ("--server", f"unix://{tmp_path}/s", "--basic-auth-username", "ann", "--basic-auth-password", "x")
    with connected(settings(*words)) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        assert len(list(server.stream(stub.GetFlows, observer_pb2.GetFlowsRequest()))) > 20
    serving.stop()
    assert serving.answering.metadata["authorization"] == f"Basic {base64.b64encode(b'ann:x').decode()}"
