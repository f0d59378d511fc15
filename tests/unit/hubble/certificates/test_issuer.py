"""The Secrets that the operator keeps: made once, renewed, made anew when somebody breaks them."""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
from pathlib import Path

import pytest
import structlog
from ciliate.health import Health
from ciliate.store import NotFoundError, Object
from ciliate_hubble.certificates.authority import make_authority, read_certificates
from ciliate_hubble.certificates.issuer import Issuer, read_authorities
from ciliate_hubble.certificates.names import (
    CA_SECRET,
    RELAY_CLIENT_SECRET,
    RELAY_SERVER_SECRET,
    SERVER_SECRET,
    leaves,
    server_name,
)
from ciliate_hubble.certificates.rotation import Lives
from ciliate_hubble.certificates.secrets import SECRET, SecretError, make_secret, read_data
from ciliate_store_local.driver import LocalStore
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.unit.hubble.certificates.conftest import DAY, LIVES, NAMESPACE, MakeIssuer
from tests.unit.processes.parts import reached

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
NAMES = (SERVER_SECRET, RELAY_CLIENT_SECRET, RELAY_SERVER_SECRET)


async def secrets_of(store: LocalStore) -> dict[str, Object]:
    found = await store.list(SECRET, NAMESPACE)
    return {secret["metadata"]["name"]: secret for secret in found.items}


def certificate(secret: Object) -> x509.Certificate:
    return read_certificates(read_data(secret, "tls.crt")["tls.crt"])[0]


def bundle(secret: Object) -> list[x509.Certificate]:
    return read_certificates(read_data(secret, "ca.crt")["ca.crt"])


async def test_secrets_have_the_names_keys_and_subjects_that_cilium_gives_them(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    await make_issuer(cluster="eu.prod").ensure(NOW)
    found = await secrets_of(store)
    assert set(found) == {CA_SECRET, *NAMES}
    assert {name: set(secret["data"]) for name, secret in found.items()} == {
        CA_SECRET: {"ca.crt", "ca.key"},
        **{name: {"tls.crt", "tls.key", "ca.crt"} for name in NAMES},
    }
    (authority,) = bundle(found[CA_SECRET])
    for name, expected, usage in (
        (SERVER_SECRET, "*.eu-prod.hubble-grpc.cilium.io", ExtendedKeyUsageOID.SERVER_AUTH),
        (RELAY_CLIENT_SECRET, "*.hubble-relay.cilium.io", ExtendedKeyUsageOID.CLIENT_AUTH),
        (RELAY_SERVER_SECRET, "*.hubble-relay.cilium.io", ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        made = certificate(found[name])
        made.verify_directly_issued_by(authority)
        assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == expected
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [expected]
        assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert bundle(found[name]) == [authority]
        assert "ca.key" not in found[name]["data"]


@pytest.mark.parametrize(
    ("node", "cluster", "expected"),
    [
        ("ip-10-0-1-2", "prod", "ip-10-0-1-2.prod.hubble-grpc.cilium.io"),
        ("a.b.c", "eu.prod", "a-b-c.eu-prod.hubble-grpc.cilium.io"),
        ("node1", "", "node1.default.hubble-grpc.cilium.io"),
    ],
)
def test_a_servers_name_has_dashes_for_the_dots_of_node_and_cluster(node: str, cluster: str, expected: str) -> None:
    assert server_name(node, cluster) == expected


async def test_two_issuers_at_once_agree_on_one_ca(store: LocalStore, make_issuer: MakeIssuer, tmp_path: Path) -> None:
    other = LocalStore({"path": str(tmp_path / "store.db")}, (SECRET,))
    try:
        issuers = [make_issuer(on=one) for one in (store, other) for _ in range(8)]
        await asyncio.gather(*(issuer.ensure(NOW) for issuer in issuers))
    finally:
        await other.close()
    found = await secrets_of(store)
    (authority,) = bundle(found[CA_SECRET])
    for name in NAMES:
        certificate(found[name]).verify_directly_issued_by(authority)


async def test_looking_again_changes_nothing(store: LocalStore, make_issuer: MakeIssuer) -> None:
    await make_issuer().ensure(NOW)
    before = await secrets_of(store)
    due = await make_issuer().ensure(NOW + 59 * DAY)
    assert await secrets_of(store) == before
    assert NOW + 59 * DAY < due < NOW + 61 * DAY


async def test_certificates_are_renewed_before_they_end_and_their_ca_stays(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    await make_issuer().ensure(NOW)
    before = await secrets_of(store)
    await make_issuer().ensure(NOW + 61 * DAY)
    after = await secrets_of(store)
    assert before[CA_SECRET] == after[CA_SECRET]
    for name in NAMES:
        assert certificate(before[name]).not_valid_after_utc > NOW + 61 * DAY, "it was still good"
        assert certificate(after[name]).not_valid_after_utc > NOW + 150 * DAY


async def test_a_ca_is_rotated_with_both_trusted_meanwhile(store: LocalStore, make_issuer: MakeIssuer) -> None:
    await make_issuer().ensure(NOW)
    (old,) = bundle((await secrets_of(store))[CA_SECRET])
    at = NOW + 601 * DAY
    await make_issuer().ensure(at)
    rotating = await secrets_of(store)
    _, new = bundle(rotating[SERVER_SECRET])
    certificate(rotating[SERVER_SECRET]).verify_directly_issued_by(old)
    await make_issuer().ensure(at + LIVES.handover)
    after = await secrets_of(store)
    certificate(after[SERVER_SECRET]).verify_directly_issued_by(new)
    assert bundle(after[RELAY_CLIENT_SECRET]) == [new, old]
    assert "next.key" not in after[CA_SECRET]["data"]
    assert read_data(after[CA_SECRET], "ca.key") != read_data(rotating[CA_SECRET], "ca.key")


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
async def test_what_somebody_breaks_is_made_anew(store: LocalStore, make_issuer: MakeIssuer, key: str) -> None:
    await make_issuer().ensure(NOW)
    secret = await store.get(SECRET, SERVER_SECRET, NAMESPACE)
    for broken in ("", "%%%", base64.b64encode(b"nonsense").decode()):
        await store.update({**secret, "metadata": _unversioned(secret), "data": {**secret["data"], key: broken}})
        await make_issuer().ensure(NOW)
        mended = await store.get(SECRET, SERVER_SECRET, NAMESPACE)
        (authority,) = bundle(mended)
        certificate(mended).verify_directly_issued_by(authority)


async def test_an_annotation_of_others_stays_on_a_secret_that_is_renewed(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    await make_issuer().ensure(NOW)
    secret = await store.get(SECRET, SERVER_SECRET, NAMESPACE)
    await store.update({**secret, "metadata": {**secret["metadata"], "annotations": {"team": "net"}}})
    await make_issuer().ensure(NOW + 61 * DAY)
    assert (await store.get(SECRET, SERVER_SECRET, NAMESPACE))["metadata"]["annotations"] == {"team": "net"}


async def test_a_cluster_of_another_name_gets_certificates_of_that_name(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    await make_issuer(cluster="one").ensure(NOW)
    await make_issuer(cluster="two").ensure(NOW)
    found = await secrets_of(store)
    names = certificate(found[SERVER_SECRET]).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.two.hubble-grpc.cilium.io"]


async def test_a_ca_that_the_user_brings_is_used_and_its_other_certificates_are_trusted(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    mine, former = make_authority(NOW, 900 * DAY), make_authority(NOW, 900 * DAY)
    data = {"ca.crt": former.certificate_pem + mine.certificate_pem, "ca.key": mine.key_pem}
    await store.create(make_secret(NAMESPACE, CA_SECRET, data, "Opaque"))
    await make_issuer().ensure(NOW)
    found = await secrets_of(store)
    assert found[CA_SECRET]["data"] == {key: base64.b64encode(value).decode() for key, value in data.items()}
    certificate(found[SERVER_SECRET]).verify_directly_issued_by(mine.certificate)
    assert bundle(found[SERVER_SECRET]) == [mine.certificate, former.certificate]


@pytest.mark.parametrize("what", ["no key", "another key", "garbage"])
async def test_a_users_ca_that_can_not_sign_is_named_and_left_alone(
    store: LocalStore, make_issuer: MakeIssuer, what: str
) -> None:
    mine, other = make_authority(NOW, 900 * DAY), make_authority(NOW, 900 * DAY)
    key = {"no key": b"", "another key": other.key_pem, "garbage": b"-----BEGIN PRIVATE KEY-----\nAAAA"}[what]
    before = await store.create(
        make_secret(NAMESPACE, CA_SECRET, {"ca.crt": mine.certificate_pem, "ca.key": key}, "Opaque")
    )
    with pytest.raises(SecretError, match=r"Secret kube-system/cilium-ca.*put a CA's certificate and key there"):
        await make_issuer().ensure(NOW)
    assert await store.get(SECRET, CA_SECRET, NAMESPACE) == before
    with pytest.raises(NotFoundError):
        await store.get(SECRET, SERVER_SECRET, NAMESPACE)


async def test_a_running_issuer_renews_by_itself_and_mends_what_is_deleted(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    second = datetime.timedelta(seconds=1)
    running = asyncio.create_task(make_issuer(Lives(900 * DAY, leaf=1.5 * second, handover=DAY)).run())
    try:
        seen: set[int] = set()

        async def renewed(times: int) -> None:
            async with asyncio.timeout(20):
                while len(seen) < times:
                    found = await secrets_of(store)
                    if SERVER_SECRET in found:
                        seen.add(certificate(found[SERVER_SECRET]).serial_number)
                    await asyncio.sleep(0.02)

        await renewed(3)
        await store.delete(SECRET, CA_SECRET, NAMESPACE)
        await renewed(len(seen) + 1)
        found = await secrets_of(store)
        certificate(found[SERVER_SECRET]).verify_directly_issued_by(bundle(found[CA_SECRET])[0])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_no_key_is_shown_in_logs_or_errors(
    store: LocalStore, make_issuer: MakeIssuer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        await make_issuer().ensure(NOW)
        secret = await store.get(SECRET, CA_SECRET, NAMESPACE)
        known = read_authorities(secret)
    key = known.signing.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    lines = [line for line in key.decode().splitlines() if "PRIVATE" not in line]
    shown = f"{logs}{caplog.text}{capfd.readouterr()}{known!r}"
    assert logs, "something is logged"
    assert not [line for line in [*lines, "PRIVATE"] if line in shown]


async def test_an_issuer_goes_on_when_the_store_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.write_text("a file where the store's folder should be")
    late = LocalStore({"path": str(folder / "store.db")}, (SECRET,))
    health = Health("hubble")
    issuer = Issuer(late, NAMESPACE, leaves("default"), LIVES, health, structlog.get_logger("hubble"))
    running = asyncio.create_task(issuer.run())
    try:
        await reached(lambda: any(str(folder) in reason for reason in health.reasons), 10)
        folder.unlink()
        await reached(lambda: not health.reasons, 20)
        assert set(await secrets_of(late)) == {CA_SECRET, *NAMES}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await late.close()


def _unversioned(secret: Object) -> Object:
    return {key: value for key, value in secret["metadata"].items() if key != "resourceVersion"}
