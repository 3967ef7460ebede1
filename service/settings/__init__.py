"""The environment, read once.

Every value has a default that suits a laptop or a small server. `REPPOSE_<GROUP>__<NAME>` changes it, for example
`REPPOSE_HTTP__PORT=9000`. A misspelt name inside a group is an error; `unknown_names` finds the others. What is secret
may stand in a file instead, as container engines mount it: `REPPOSE_<GROUP>__<NAME>_FILE` is its path.
"""

from service.settings.access import AdminSettings, AuthSettings, RateSettings
from service.settings.listeners import DrainSettings, GrpcSettings, HttpSettings, LimitSettings
from service.settings.models import BatchSettings, ModelSettings
from service.settings.observing import LogSettings
from service.settings.streams import SessionSettings, StreamSettings
from service.settings.tree import Settings, names, unknown_names

__all__ = [
    "AdminSettings",
    "AuthSettings",
    "BatchSettings",
    "DrainSettings",
    "GrpcSettings",
    "HttpSettings",
    "LimitSettings",
    "LogSettings",
    "ModelSettings",
    "RateSettings",
    "SessionSettings",
    "Settings",
    "StreamSettings",
    "names",
    "unknown_names",
]
