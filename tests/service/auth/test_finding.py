"""Where a credential is looked for, and how the documentation says so."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auth import roles
from service.auth.roles import Role
from service.rest import access as rest
from service.rpc import access as rpc
from tests.service.test_openapi import DOCUMENT

TOKEN = st.text(string.ascii_letters + string.digits + "-._~+/=", min_size=1, max_size=60)
NAMES = st.sampled_from([b"authorization", b"x-authorization", b"cookie", b"proxy-authorization"])


@given(
    credential=TOKEN, scheme=st.sampled_from(["Bearer", "bearer", "BEARER"]), padding=st.text(" ", max_size=3)
)
def test_both_transports_find_a_bearer_token(credential: str, scheme: str, padding: str) -> None:
    text = f"{scheme} {padding}{credential}{padding}"
    assert rest.credential({"headers": [(b"host", b"x"), (b"authorization", text.encode())]}) == credential
    assert rpc.credential([("user-agent", "x"), ("authorization", text)]) == credential


@given(credential=TOKEN, others=st.lists(st.sampled_from(["reppose.v1", "soap", "reppose.bearer"])))
def test_a_browsers_subprotocol_is_found(credential: str, others: list[str]) -> None:
    offered = [*others, f"reppose.bearer.{credential}"]
    assert rest.credential({"headers": [], "subprotocols": offered}) == credential
    header = (b"authorization", b"Bearer other")
    assert rest.credential({"headers": [header], "subprotocols": offered}) == "other"


@given(headers=st.lists(st.tuples(NAMES, st.binary(max_size=40))), protocols=st.lists(st.text(max_size=40)))
def test_nothing_else_is_one(headers: list[tuple[bytes, bytes]], protocols: list[str]) -> None:
    found = rest.credential({"headers": headers, "subprotocols": protocols})
    bearers = [
        value for name, value in headers if name == b"authorization" and value[:7].lower() == b"bearer "
    ]
    offered = [each for each in protocols if each.startswith("reppose.bearer.")]
    assert (found is not None) == bool(bearers or offered)
    metadata = [
        (name.decode(), value) for name, value in headers
    ]  # bytes: a header whose name ends with -bin
    assert rpc.credential(metadata) is None
    assert rpc.credential(None) is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:[2001:db8::1]:5000", "2001:db8::1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("unix:/run/socket", ""),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_grpc_peer(peer: str, expected: str) -> None:
    assert rpc.address(peer) == expected


def test_the_documentation_says_which_operations_may_need_a_credential() -> None:
    seen = set()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            role = roles.HTTP[operation["operationId"]]
            seen.add(role)
            assert ("security" in operation) == (role is not roles.OPEN)
            if role is not roles.OPEN:
                assert operation["security"] == [{"bearer": []}, {}]
                assert {"401", "403"} <= operation["responses"].keys()
            assert ("429" in operation["responses"]) == (role is Role.PREDICT)
    assert seen == {*Role, roles.OPEN}
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
