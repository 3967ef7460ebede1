"""How a request ended, where no error says so; a module of its own because it needs no transport."""

from __future__ import annotations

OK = "ok"
"""It was answered."""

CLIENT_GONE = "client_gone"
"""Its client left before the answer."""

INTERNAL = "internal"
"""The service failed to answer."""
