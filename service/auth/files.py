"""The files of credentials: read at the start, and again when they change, without a restart.

A file that has become broken changes nothing: what was read before goes on, and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from service.auth.guard import Guard, Verifier
from service.changes import Watched
from service.errors import BadCredentialFile
from service.logs import facts, log

Reader = Callable[[str], Verifier]
"""The text of a file to those whom it lets in. Raises BadCredentialFile."""
MOST_BYTES = 16 * 1024 * 1024
"""Longest file that is read."""


class Files:
    """Keeps a guard to what some files say.

    Args:
        guard: who asks them.
        readers: what to make of each file.
        others: who is let in whatever the files say.
        every_s: how often to look whether a file has changed.
        reread: told `ok` or `failed` each time that the files were read again.

    Raises:
        BadCredentialFile: one of them cannot be read, or is broken.
    """

    def __init__(
        self,
        guard: Guard,
        readers: Mapping[Path, Reader],
        others: tuple[Verifier, ...] = (),
        every_s: float = 2.0,
        reread: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._guard, self._readers, self._others = guard, dict(readers), others
        self._reread = reread
        self._watched = Watched(tuple(self._readers), self.reread, every_s)
        guard.replace(self._read())

    def start(self) -> None:
        """Begin to look whether the files change."""
        self._watched.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._watched.stop()

    def reread(self) -> None:
        """Read the files again, changed or not; where one is broken all stays as it was, and the log says why."""
        if not self._readers:
            return
        self._watched.seen()
        try:
            verifiers = self._read()
        except BadCredentialFile as error:
            log.error("credentials not read, those before stay", extra=facts(why=str(error)))
            self._reread("failed")
        else:
            self._guard.replace(verifiers)
            log.info("credentials read", extra=facts(files=[str(path) for path in self._readers]))
            self._reread("ok")

    def _read(self) -> list[Verifier]:
        verifiers = list(self._others)
        for path, reader in self._readers.items():
            try:
                with path.open("rb") as file:
                    data = file.read(MOST_BYTES + 1)
                if len(data) > MOST_BYTES:
                    raise BadCredentialFile(f"it is larger than {MOST_BYTES} bytes")
                verifiers.append(reader(data.decode("utf-8")))
            except OSError as error:
                raise BadCredentialFile(f"cannot read {path}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise BadCredentialFile(f"{path} is no UTF-8") from None
            except BadCredentialFile as error:
                raise BadCredentialFile(f"{path}: {error}") from None
        return verifiers
