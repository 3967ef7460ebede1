"""Tokens of an identity provider: which are believed; and what has gone wrong with tokens elsewhere (RFC 8725)."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from service.auth.guard import Guard
from service.auth.roles import Role
from service.auth.tokens import ALGORITHMS, Rules, Tokens
from service.errors import BadCredentialFile, Unauthenticated
from tests.service.auth.credentials import (
    AUDIENCE,
    ISSUER,
    SIGNER,
    STRANGER,
    claims,
    jwk,
    key_set,
    token,
)

RULES = Rules(ISSUER, AUDIENCE, ("EdDSA", "RS256", "ES256"), leeway_s=10)
TOKENS = Tokens(key_set(), RULES)
RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
FAMILY = {
    "RS": jwt.algorithms.RSAAlgorithm,
    "PS": jwt.algorithms.RSAAlgorithm,
    "ES": jwt.algorithms.ECAlgorithm,
}


def public(key: Any, family: str, **more: str) -> dict[str, Any]:
    return {**FAMILY[family].to_jwk(key.public_key(), as_dict=True), "kid": "one"} | more


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_good_token_says_who_may_do_what_until_when() -> None:
    until_s = int(time.time()) + 60
    found = TOKENS.verify(token("anna", ["predict", "cook", "metrics"], exp=until_s))
    assert (found.owner, found.name, found.roles) == ("jwt:anna", "anna", {Role.PREDICT, Role.METRICS})
    assert found.expires_s == until_s + RULES.leeway_s
    assert found.limits is None


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256"])
@pytest.mark.parametrize("said", [True, False])
def test_keys_of_other_kinds(algorithm: str, said: bool) -> None:
    key = CURVE if algorithm == "ES256" else RSA
    more = {"alg": algorithm} if said else {}
    known = Tokens(key_set(public(key, algorithm[:2], **more)), Rules(ISSUER, AUDIENCE, sorted(ALGORITHMS)))
    signed = jwt.encode(claims(), key, algorithm, headers={"kid": "one"})
    assert known.verify(signed).name == "somebody"
    if algorithm[1:] == "S512":
        only_256 = Tokens(key_set(public(key, "RS")), RULES)
        assert only_256.verify(signed) is None


def unsigned() -> str:
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."


def signed_with_the_public_key() -> str:
    pem = SIGNER.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    import hashlib
    import hmac

    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(claims())}"
    mac = base64.urlsafe_b64encode(hmac.digest(pem, text.encode(), hashlib.sha256)).rstrip(b"=")
    return f"{text}.{mac.decode()}"


def with_a_key_of_its_own() -> str:
    headers = {"kid": "one", "jwk": jwk(STRANGER), "jku": "https://attacker.example.org/jwks.json"}
    return jwt.encode(claims(), STRANGER, "EdDSA", headers=headers)


def with_other_claims() -> str:
    head, _, signature = token().split(".")
    return f"{head}.{part(claims(roles=['admin']))}.{signature}"


ATTACKS: dict[str, Callable[[], str]] = {
    "not signed": unsigned,
    "signed with the public key as a secret": signed_with_the_public_key,
    "signed with a key that it brings": with_a_key_of_its_own,
    "changed after it was signed": with_other_claims,
    "of a stranger": lambda: token(by=STRANGER),
    "of another issuer": lambda: token(iss="https://other.example.org"),
    "for another service": lambda: token(aud="others"),
    "for nobody": lambda: token(aud=None),
    "of nobody": lambda: token(iss=None),
    "about nobody": lambda: token(sub=None),
    "about the empty name": lambda: token(""),
    "about a number": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"sub": 7}).encode(), SIGNER, "EdDSA", headers={"kid": "one"}
    ),
    "about a book": lambda: token("a" * 300),
    "for ever": lambda: token(exp=None),
    "beyond all time": lambda: token(exp=10**30),
    "until a text": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"exp": "9999999999"}).encode(), SIGNER, "EdDSA", headers={"kid": "one"}
    ),
    "until infinity": lambda: jwt.api_jws.encode(
        json.dumps(claims() | {"exp": float("inf")}).encode(), SIGNER, "EdDSA", headers={"kid": "one"}
    ),
    "not yet good": lambda: token(nbf=int(time.time()) + 100),
    "of the future": lambda: token(iat=int(time.time()) + 100),
    "of an unknown key": lambda: jwt.encode(claims(), SIGNER, "EdDSA", headers={"kid": "../one"}),
    "of a list of claims": lambda: jwt.api_jws.encode(b"[1]", SIGNER, "EdDSA", headers={"kid": "one"}),
    "of an endless header": lambda: f"{base64.urlsafe_b64encode(b'[' * 3000).decode()}.e30.",
    "that must be understood": lambda: jwt.encode(
        claims(), SIGNER, "EdDSA", headers={"kid": "one", "crit": ["exp"]}
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_other_token_is_believed(attack: str) -> None:
    assert TOKENS.verify(token()) is not None
    assert TOKENS.verify(ATTACKS[attack]()) is None


def test_a_key_checks_signatures_of_its_own_kind_only() -> None:
    both = Tokens(key_set(public(RSA, "RS", kid="rsa"), public(CURVE, "ES", kid="curve")), RULES)
    assert both.verify(jwt.encode(claims(), RSA, "RS256", headers={"kid": "rsa"})) is not None
    assert both.verify(jwt.encode(claims(), RSA, "RS256", headers={"kid": "curve"})) is None
    assert both.verify(jwt.encode(claims(), CURVE, "ES256", headers={"kid": "rsa"})) is None


def test_a_token_that_does_not_say_which_key_must_leave_no_choice() -> None:
    silent = jwt.encode(claims(), SIGNER, "EdDSA")
    assert TOKENS.verify(silent) is not None
    two = Tokens(key_set(jwk(STRANGER, "zero"), jwk(SIGNER)), RULES)
    assert two.verify(silent) is None
    assert two.verify(token()) is not None


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_no_text_is_a_token(text: str) -> None:
    good = token()
    assert TOKENS.verify(text) is None
    assert TOKENS.verify(f"{text or ' '}.{good}") is None
    head, body, signature = good.split(".")
    for changed in (f"{text}.{body}.{signature}", f"{head}.{text}.{signature}", f"{head}.{body}.{text}"):
        assert TOKENS.verify(changed) is None


@pytest.mark.parametrize(
    ("claim", "more", "expected"),
    [
        ("roles", {"roles": ["predict"]}, {Role.PREDICT}),
        ("scope", {"scope": "openid predict admin"}, {Role.PREDICT, Role.ADMIN}),
        ("realm_access.roles", {"realm_access": {"roles": ["metrics"]}}, {Role.METRICS}),
        ("https://example.org/roles", {"https://example.org/roles": ["admin"]}, {Role.ADMIN}),
        ("roles", {"roles": None}, set()),
        ("roles", {"roles": "predictor admins"}, set()),
        ("roles.deep", {"roles": ["predict"]}, set()),
        ("roles", {"roles": {"predict": True}}, set()),
        ("roles", {"roles": [["predict"], 1]}, set()),
    ],
)
def test_where_the_roles_are(claim: str, more: dict[str, Any], expected: set[Role]) -> None:
    rules = Rules(ISSUER, AUDIENCE, ("EdDSA",), role_claim=claim)
    made = jwt.encode(claims() | {"roles": None} | more, SIGNER, "EdDSA", headers={"kid": "one"})
    assert Tokens(key_set(), rules).verify(made).roles == expected


def test_an_expired_token_is_told_from_a_wrong_one_only_to_whom_it_was_given() -> None:
    now_s = time.time()
    guard = Guard([TOKENS], open_to_all=frozenset(), clock=lambda: now_s)
    good = token(exp=int(now_s) + 5)
    assert guard.admit(good, Role.PREDICT).name == "somebody"
    now_s += 14
    assert guard.admit(good, Role.PREDICT).name == "somebody"
    now_s += 2
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="expired"):
            guard.admit(good, Role.PREDICT)
    with pytest.raises(Unauthenticated, match="not known here"):
        guard.admit(token(by=STRANGER, exp=int(now_s) - 100), Role.PREDICT)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON Web Key Set"),
        ("[]", "no JSON Web Key Set"),
        ("[" * 100_000, "no JSON Web Key Set"),
        ('{"keys": 1}', "no list"),
        ('{"keys": [1]}', "no list"),
        ('{"keys": []}', "no key that can check"),
        (key_set(jwk(SIGNER, use="enc")), "no key that can check"),
        (key_set(public(RSA, "RS", alg="RS384")), "no key that can check"),
        (key_set({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), "secret key"),
        (key_set(jwk(SIGNER) | {"d": "c2VjcmV0"}), "secret key"),
        (key_set(jwk(SIGNER) | {"x": "AA"}), "'one' is broken"),
        (key_set(jwk(SIGNER) | {"crv": ["P-256"]}), "'one' is broken"),
        (key_set(jwk(SIGNER) | {"alg": ["ES256"]}), "'one' is broken"),
        (key_set(public(rsa.generate_private_key(65537, 1024), "RS")), "less than 2048 bits"),
    ],
)
def test_a_wrong_key_set_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(BadCredentialFile, match=says):
        Tokens(text, RULES)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "ES256K"])
def test_other_algorithms_cannot_be_allowed(algorithm: str) -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        Tokens(key_set(), Rules(ISSUER, AUDIENCE, (algorithm,)))
