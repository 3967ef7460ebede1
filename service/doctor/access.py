"""Checks of who is let in: credentials, certificates and when they expire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from service import tls
from service.doctor.findings import Finding
from service.errors import StartupError
from service.settings import Effective, Settings

SOON_S = 14 * 24 * 3600
"""A certificate that expires within this time is warned of."""


def credentials(effective: Effective) -> Iterator[Finding]:
    """The files of keys and of token keys say what they should."""
    auth = effective.settings.auth
    if not auth.on:
        yield Finding("credentials", "note", "none are asked for: everybody who reaches the service may ask")
    for what, path in (("keys", auth.key_file), ("keys of tokens", auth.jwks_file)):
        if path is None:
            continue
        try:
            count = _held(path, effective.settings)
        except (StartupError, OSError) as error:
            yield Finding("credentials", "failed", f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        advice = "" if count else "`reppose-serve key` makes one"
        yield Finding("credentials", "ok" if count else "warning", f"{what} in {path}: {count}", advice)


def _held(path: Path, settings: Settings) -> int:
    """How many keys a file holds. Raises StartupError, OSError."""
    from service.auth.keys import Keys

    text, auth = path.read_text("utf-8", "replace"), settings.auth
    if path == auth.key_file:
        return len(Keys(text))
    try:
        from service.auth.tokens import Rules, Tokens
    except ImportError:
        raise StartupError("tokens need the extra: pip install 'reppose[auth]'") from None
    return len(Tokens(text, Rules(auth.jwt_issuer, auth.jwt_audience, auth.jwt_algorithms)))


def certificates(effective: Effective) -> Iterator[Finding]:
    """The certificate and its key belong together, and are good for a while."""
    given = effective.settings.tls
    if given.certificate is None or given.key is None:
        yield Finding("certificate", "note", "none: both listeners are plain")
        return
    try:
        found = tls.read(tls.Paths(given.certificate, given.key, given.client_ca))
    except StartupError as error:
        yield Finding(
            "certificate", "failed", str(error), "REPPOSE_TLS__CERTIFICATE and REPPOSE_TLS__KEY name them"
        )
    else:
        yield _fresh(given.certificate, found.expires_s)
    if given.probe_certificate is not None:
        try:
            yield _fresh(given.probe_certificate, tls.expiry(given.probe_certificate))
        except StartupError as error:
            yield Finding("certificate", "failed", str(error), "REPPOSE_TLS__PROBE_CERTIFICATE names it")


def _fresh(path: Path, expires_s: float) -> Finding:
    left_s = expires_s - time.time()
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires_s))
    if left_s <= 0:
        return Finding(
            "certificate", "failed", f"{path} expired on {date}", "renew it: it is read again by itself"
        )
    days = f"{left_s / 86400:.1f} days"
    if left_s < SOON_S:
        return Finding("certificate", "warning", f"{path} expires in {days}, on {date}", "renew it")
    return Finding("certificate", "ok", f"{path} is good for {days}, until {date}")
