"""How CAs follow one another: a new one is trusted before it signs, an old one until it ends."""

from __future__ import annotations

import datetime

from ciliate_hubble.certificates.authority import LEFT_TO_RENEW, issue, make_authority, renew_at
from ciliate_hubble.certificates.names import Leaf
from ciliate_hubble.certificates.rotation import Authorities, Lives, advance, next_due

from tests.unit.hubble.certificates.conftest import DAY, LIVES

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_the_first_ca_lasts_until_a_third_of_its_life_is_left() -> None:
    first = advance(None, BEGIN, LIVES)
    assert advance(first, BEGIN + 599 * DAY, LIVES) is first
    assert next_due(first, LIVES) == renew_at(first.signing.certificate)
    rotating = advance(first, BEGIN + 601 * DAY, LIVES)
    assert rotating.next is not None
    assert rotating.signing == first.signing, "the next one does not sign yet"


def test_a_new_ca_is_trusted_for_the_handover_before_it_signs_and_the_old_one_until_it_ends() -> None:
    first = advance(None, BEGIN, LIVES)
    at = BEGIN + 601 * DAY
    rotating = advance(first, at, LIVES)
    assert rotating.next is not None
    assert rotating.bundle == [first.signing.certificate, rotating.next.certificate]
    assert advance(rotating, at + LIVES.handover / 2, LIVES) is rotating
    assert next_due(rotating, LIVES) == at + LIVES.handover

    taken_over = advance(rotating, at + LIVES.handover, LIVES)
    assert taken_over.signing == rotating.next
    assert taken_over.bundle == [taken_over.signing.certificate, first.signing.certificate]
    ended = first.signing.certificate.not_valid_after_utc + datetime.timedelta(seconds=1)
    assert advance(taken_over, ended, LIVES).bundle == [taken_over.signing.certificate]


def test_over_ten_lives_each_side_always_knows_the_others_certificate() -> None:
    """Readers that are late by less than the handover have a bundle that covers what is signed at any time."""
    known: Authorities | None = None
    step = LIVES.handover / 4
    seen: list[Authorities] = []
    for number in range(int(LIVES.authority * 10 / step)):
        known = advance(known, BEGIN + number * step, LIVES)
        seen.append(known)
        if number >= 3:
            assert known.signing.certificate in seen[number - 3].bundle, "a late reader would refuse the server"
            assert seen[number - 3].signing.certificate in known.bundle, "a late server would be refused"
    assert len({known.signing.certificate for known in seen}) > 9


def test_an_issuer_that_slept_past_the_end_of_its_ca_begins_anew() -> None:
    first = advance(None, BEGIN, LIVES)
    later = advance(first, BEGIN + 2 * LIVES.authority, LIVES)
    assert later.bundle == [later.signing.certificate]
    assert later.signing != first.signing


def test_an_issuer_that_slept_through_the_handover_lets_the_next_ca_sign() -> None:
    rotating = advance(advance(None, BEGIN, LIVES), BEGIN + 890 * DAY, LIVES)
    assert advance(rotating, BEGIN + 901 * DAY, LIVES).signing == rotating.next


def test_a_certificate_does_not_outlive_the_ca_that_signed_it() -> None:
    authority = make_authority(BEGIN, 10 * DAY)
    pair = issue(authority, Leaf("x", "*.x.example", server=True), BEGIN + 5 * DAY, 90 * DAY)
    assert pair.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left() -> None:
    pair = issue(make_authority(BEGIN, 900 * DAY), Leaf("x", "*.x.example", client=True), BEGIN, 90 * DAY)
    left = pair.certificate.not_valid_after_utc - renew_at(pair.certificate)
    life = pair.certificate.not_valid_after_utc - pair.certificate.not_valid_before_utc
    assert left * LEFT_TO_RENEW == life


def test_lives_of_seconds_work_too() -> None:
    second = datetime.timedelta(seconds=1)
    lives = Lives(authority=30 * second, leaf=3 * second, handover=second)
    first = advance(None, BEGIN, lives)
    assert BEGIN < next_due(first, lives) < BEGIN + 30 * second
