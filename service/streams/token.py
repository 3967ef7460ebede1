"""Resume tokens: a session's state, signed, for its owner to take elsewhere.

A token hides nothing: it carries what its owner has seen anyway. It cannot be changed, is good for a while, and is
worth nothing to anybody but its owner, whose name is signed but not in it. It may be used more than once: whoever does
so continues the same stream twice.

Format: base64url without padding of

    version:u8  key:4 bytes  expiry:u64 (ms since 1970)  length:u16 model  state  HMAC-SHA256

where `key` says which of several keys signed. The MAC covers all before it and the owner, each with its length, so that
no part can grow at the cost of another.

Source: RFC 2104 (HMAC).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import NamedTuple

from service.errors import InvalidToken

VERSION = 1
MIN_KEY_BYTES = 16
MAX_TOKEN_CHARS = 512 * 1024
"""Longest token that is looked at, unless told otherwise."""
_HEAD = struct.Struct("<B4sQH")
_MAC_BYTES = 32


class Opened(NamedTuple):
    """What a token says."""

    model: str
    """`name@version` of the stream."""
    state: bytes
    """As `Session.to_bytes` gave it."""


class Signer:
    """Makes tokens and believes its own.

    Args:
        keys: 16 bytes or more each. The first signs, all are accepted: so keys can be changed.
        max_age_s: how long a token is good for.
        max_chars: longest token.

    Raises:
        ValueError: no key, or a short one.
    """

    def __init__(self, keys: Sequence[bytes], max_age_s: float, max_chars: int = MAX_TOKEN_CHARS) -> None:
        if not keys or any(len(key) < MIN_KEY_BYTES for key in keys):
            raise ValueError(f"at least one key, and {MIN_KEY_BYTES} bytes in each")
        self._keys = {_key_id(key): key for key in reversed(keys)}
        self._first = _key_id(keys[0])
        self._max_age_s = max_age_s
        self._max_chars = max_chars

    def sign(self, state: bytes, model: str, owner: str, now_s: float) -> str:
        """A token.

        Args:
            state: of the session.
            model: `name@version`.
            owner: whose it is; whatever the service knows a client by.
            now_s: seconds since 1970, the same on all replicas.

        Raises:
            InvalidToken: it would be too long.
        """
        name = model.encode()
        expiry_ms = int((now_s + self._max_age_s) * 1000)
        body = _HEAD.pack(VERSION, self._first, expiry_ms, len(name)) + name + state
        token = _encode(body + _mac(self._keys[self._first], body, owner))
        if len(token) > self._max_chars:
            raise InvalidToken(
                f"the session is too large for a token: {len(token)} of {self._max_chars} characters"
            )
        return token

    def open(self, token: str, owner: str, now_s: float) -> Opened:
        """What a token says.

        Args:
            token: as `sign` made it, here or on another replica with the same key.
            owner: who sends it.
            now_s: seconds since 1970.

        Raises:
            InvalidToken: it is damaged, of another owner or key, or too old. The text does not say which of the first
                three.
        """
        if len(token) > self._max_chars:
            raise InvalidToken(f"a token has at most {self._max_chars} characters")
        data = _decode(token)
        if len(data) < _HEAD.size + _MAC_BYTES:
            raise InvalidToken("this is no resume token")
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        version, key_id, expiry_ms, length = _HEAD.unpack_from(body)
        key = self._keys.get(key_id)
        # A MAC is compared even where no key fits, so that the time it takes tells nothing about our keys.
        right = hmac.compare_digest(_mac(key or bytes(MIN_KEY_BYTES), body, owner), mac)
        if not right or key is None:
            raise InvalidToken("the resume token was not made for this client by this service")
        if version != VERSION:
            raise InvalidToken(
                f"the resume token is of version {version}; this service reads version {VERSION}"
            )
        if now_s * 1000 >= expiry_ms:
            raise InvalidToken("the resume token has expired")
        model = body[_HEAD.size : _HEAD.size + length]
        return Opened(model.decode(), body[_HEAD.size + length :])


def _mac(key: bytes, body: bytes, owner: str) -> bytes:
    name = owner.encode("utf-8", "surrogatepass")
    return hmac.digest(key, struct.pack("<Q", len(body)) + body + name, hashlib.sha256)


def _key_id(key: bytes) -> bytes:
    """Four bytes that tell a key from others and nothing of it."""
    return hashlib.sha256(b"reppose resume key" + key).digest()[:4]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(token: str) -> bytes:
    """Strictly: one text per token, so that not even unused bits can be changed."""
    try:
        data = base64.b64decode(
            token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidToken("this is no resume token") from error
    if _encode(data) != token:
        raise InvalidToken("this is no resume token")
    return data
