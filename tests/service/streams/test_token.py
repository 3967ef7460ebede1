"""Resume tokens: what was signed comes back, and nothing else is believed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidToken
from service.streams.token import Signer

KEY, OLD, OTHER = b"k" * 16, b"o" * 32, b"x" * 16
NOW = 1_700_000_000.0
MODEL, OWNER = "body19-small@1", "client-a"
STATE = bytes(range(256))
SIGNER = Signer([KEY], 60.0)
TOKEN = SIGNER.sign(STATE, MODEL, OWNER, NOW)


@given(state=st.binary(max_size=2000), model=st.text(max_size=50), owner=st.text(max_size=50))
def test_what_is_signed_comes_back(state, model, owner):
    assert SIGNER.open(SIGNER.sign(state, model, owner, NOW), owner, NOW + 59) == (model, state)


def test_every_flipped_bit_is_refused():
    data = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        token = base64.urlsafe_b64encode(bytes(changed)).rstrip(b"=").decode()
        with pytest.raises(InvalidToken):
            SIGNER.open(token, OWNER, NOW)


def test_every_changed_character_is_refused():
    """The last character of base64 holds bits that mean nothing, and they may not be changed either."""
    for index, character in enumerate(TOKEN):
        for other in ("A", "B", "_", "-", "=", "é", "\n"):
            if other != character:
                with pytest.raises(InvalidToken):
                    SIGNER.open(TOKEN[:index] + other + TOKEN[index + 1 :], OWNER, NOW)


@given(
    token=st.one_of(
        st.text(max_size=300), st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode())
    )
)
def test_random_text_is_refused(token):
    with pytest.raises(InvalidToken):
        SIGNER.open(token, OWNER, NOW)


@given(length=st.integers(0, len(TOKEN) - 1), more=st.text(alphabet="AQgw_-", min_size=1, max_size=9))
def test_shorter_and_longer_ones_are_refused(length, more):
    for token in (TOKEN[:length], TOKEN + more):
        with pytest.raises(InvalidToken):
            SIGNER.open(token, OWNER, NOW)


def test_it_is_of_its_owner_only():
    for owner in ("client-b", "", OWNER + "x", OWNER[:-1]):
        with pytest.raises(InvalidToken, match="not made for this client"):
            SIGNER.open(TOKEN, owner, NOW)


def test_the_end_of_the_state_is_no_beginning_of_an_owner():
    token = SIGNER.sign(b"state-", MODEL, "owner", NOW)
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    shorter = base64.urlsafe_b64encode(data[:-33] + data[-32:]).rstrip(b"=").decode()
    with pytest.raises(InvalidToken):
        SIGNER.open(shorter, "-owner", NOW)


def test_it_expires():
    assert SIGNER.open(TOKEN, OWNER, NOW + 59.99).state == STATE
    for late in (60.0, 61.0, 1e9):
        with pytest.raises(InvalidToken, match="expired"):
            SIGNER.open(TOKEN, OWNER, NOW + late)


def test_keys_can_be_changed_while_tokens_are_out():
    before, between, after = Signer([OLD], 60), Signer([KEY, OLD], 60), Signer([KEY], 60)
    old = before.sign(STATE, MODEL, OWNER, NOW)
    assert between.open(old, OWNER, NOW).state == STATE
    new = between.sign(STATE, MODEL, OWNER, NOW)
    assert after.open(new, OWNER, NOW).state == STATE
    for signer, token in ((after, old), (before, new), (Signer([OTHER], 60), new)):
        with pytest.raises(InvalidToken, match="not made for this client by this service"):
            signer.open(token, OWNER, NOW)


def test_the_token_names_neither_owner_nor_key():
    data = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    assert OWNER.encode() not in data
    assert KEY[:4] not in data


def test_a_key_of_zeros_opens_nothing():
    """It stands in for a key that is not known, so that it takes as long."""
    with pytest.raises(InvalidToken):
        SIGNER.open(Signer([bytes(16)], 60).sign(STATE, MODEL, OWNER, NOW), OWNER, NOW)


def test_size_is_limited_both_ways():
    small = Signer([KEY], 60.0, max_chars=len(TOKEN))
    assert small.open(small.sign(STATE, MODEL, OWNER, NOW), OWNER, NOW).model == MODEL
    with pytest.raises(InvalidToken, match="too large"):
        small.sign(STATE + b"more", MODEL, OWNER, NOW)
    with pytest.raises(InvalidToken, match="at most"):
        small.open(TOKEN + "AAAA", OWNER, NOW)


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b""]])
def test_weak_keys_are_refused(keys):
    with pytest.raises(ValueError, match="at least"):
        Signer(keys, 60)
