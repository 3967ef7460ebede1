"""Settings for a server that a command such as `bench` or `soak` starts for itself.

They are those of the command that say what is computed and how. Who may ask, over what, and who else is told of it are
the defaults: the command shows no credential, and must not be held to the budget of a client.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from service.settings.reading import CONFIG_VARIABLE, OTHERS
from service.settings.text import shown
from service.settings.tree import ENV_PREFIX, Settings, known

PASSED = frozenset(("models", "limits", "batch", "sessions", "streams", "log"))
"""Groups of settings that hold for such a server as well."""


def environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """All variables for such a server.

    Args:
        settings: in force for the command, whether they came from a file, the environment or options.
        inherited: variables of the command; what they set for the service itself is left out.
    """
    kept = OTHERS - {CONFIG_VARIABLE}
    found = {
        name: value
        for name, value in inherited.items()
        if not name.upper().startswith(ENV_PREFIX) or name.upper() in kept
    }
    for setting in known():
        value = getattr(getattr(settings, setting.group), setting.name)
        if setting.group in PASSED and value != setting.default:
            text = value.get_secret_value() if isinstance(value, SecretStr) else shown(value)
            found[setting.variable] = text
    return found
