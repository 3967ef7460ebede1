"""What can go wrong with models, their files and their arrays. These classes know no transport."""


class ModelZooError(Exception):
    """Base of every error this package raises on purpose; its text is written for the user."""


class SkeletonError(ModelZooError):
    """An unknown skeleton, or one whose parts contradict each other."""


class GeometryError(ModelZooError):
    """A box, size or matrix that describes no crop."""


class HeatmapError(ModelZooError):
    """Heatmaps that no decoder can read: wrong axes, empty, or not finite."""


class UnknownDecoder(ModelZooError):
    """No decoder of this name is installed."""


class ManifestError(ModelZooError):
    """A manifest that is missing, malformed, or at odds with the model beside it."""


class BundleNotFound(ModelZooError):
    """No bundle of this name and version."""


class BundleExists(ModelZooError):
    """A bundle of this name and version is there already, and was not to be replaced."""


class BundleCorrupt(ModelZooError):
    """A file of the bundle is missing, or differs from the manifest in size or sha256."""
