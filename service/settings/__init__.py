"""What can be set: groups by theme, the tree of them (`tree`) and where values come from (`reading`).

Every value has a default that suits a laptop or a small server. A TOML file changes it, `[http]` and `port = 9000`, and
over it the environment, `REPPOSE_HTTP__PORT=9000`. Unknown names are errors in both. What is secret may stand in a
file of its own, as container engines mount it: its path is `REPPOSE_<GROUP>__<NAME>_FILE`, or `<name>_file` in TOML.
"""

from service.settings.access import AdminSettings, AuthSettings, RateSettings
from service.settings.listeners import DrainSettings, GrpcSettings, HttpSettings, LimitSettings
from service.settings.models import BatchSettings, ModelSettings
from service.settings.observing import LogSettings, MetricsSettings, TracingSettings
from service.settings.reading import CONFIG_VARIABLE, Effective, SettingsError, read
from service.settings.streams import SessionSettings, StreamSettings
from service.settings.tls import TlsSettings
from service.settings.tree import Settings, names

__all__ = [
    "CONFIG_VARIABLE",
    "AdminSettings",
    "AuthSettings",
    "BatchSettings",
    "DrainSettings",
    "Effective",
    "GrpcSettings",
    "HttpSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "RateSettings",
    "SessionSettings",
    "Settings",
    "SettingsError",
    "StreamSettings",
    "TlsSettings",
    "TracingSettings",
    "names",
    "read",
]
