"""What can go wrong in training, with texts written for the user."""


class TrainerError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(TrainerError):
    """Annotations or pictures that cannot be read, or that contradict each other."""


class ConfigError(TrainerError):
    """A configuration that cannot be used; the text names the field."""


class NotFinite(TrainerError):
    """The loss became NaN or infinite; the text names the step and its people."""


class CheckpointError(TrainerError):
    """A run folder or checkpoint that cannot be used."""


class ExportError(TrainerError):
    """The exported graph does not compute what the trained net computes."""


class QuantisationError(TrainerError):
    """A graph that cannot be computed in 8 bits, or not well enough."""


class Interrupted(TrainerError):
    """The run was asked to stop and can go on; the text says where it stands."""

    STATUS = 143
    """Exit status of a process that a SIGTERM ended."""
