"""From plain values to a guard and the files that it believes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from service.auth.files import Files, Reader
from service.auth.guard import Guard, Secret, Verified
from service.auth.keys import Keys
from service.auth.rates import Limits
from service.auth.roles import Role
from service.errors import StartupError


def open_guard(
    *,
    key_file: Path | None,
    jwks_file: Path | None,
    token_rules: dict[str, object],
    admin_token: str,
    limits: Limits,
    by_address: bool,
    every_s: float,
    refused: Callable[[str], None],
    reread: Callable[[str], None],
) -> tuple[Guard, Files]:
    """Who may ask.

    Args:
        key_file: of API keys, or None.
        jwks_file: of the public keys that sign tokens, or None. Without either file everybody may ask for poses and
            metrics.
        token_rules: fields of `tokens.Rules`.
        admin_token: a credential with the role admin; empty for none.
        limits: of clients without limits of their own.
        by_address: as of `Guard`.
        every_s: how often to look whether a file has changed.
        refused: told the reason of every refusal.
        reread: told the outcome each time that the files were read again.

    Raises:
        BadCredentialFile: a file cannot be read, or is broken.
        StartupError: tokens need what is not installed.
    """
    open_to_all = frozenset[Role]()
    if key_file is None and jwks_file is None:
        open_to_all = frozenset(Role) if not admin_token else frozenset(Role) - {Role.ADMIN}
    guard = Guard(open_to_all=open_to_all, limits=limits, by_address=by_address, rejected=refused)
    operator = Verified("admin token", "admin token", frozenset((Role.ADMIN,)))
    others = (Secret(admin_token, operator),) if admin_token else ()
    readers: dict[Path, Reader] = {}
    if key_file is not None:
        readers[key_file] = partial(Keys, limits=limits)
    if jwks_file is not None:
        readers[jwks_file] = _token_reader(token_rules)
    return guard, Files(guard, readers, others, every_s, reread)


def _token_reader(rules: dict[str, object]) -> Reader:
    try:
        from service.auth.tokens import Rules, Tokens
    except ImportError as error:
        raise StartupError(
            "tokens of an identity provider need the extra: pip install 'reppose[auth]'"
        ) from error
    return partial(Tokens, rules=Rules(**rules))
