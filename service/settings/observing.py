"""Settings of what the service tells about itself."""

from __future__ import annotations

from typing import Literal

from service.settings.group import Group


class LogSettings(Group):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines to write."""
    format: Literal["auto", "json", "text"] = "auto"
    """auto writes text to a terminal and JSON lines elsewhere."""
    requests: bool = True
    """Write a line for every request."""
