"""What a pose model is: skeletons, the pixel convention, codecs, manifests and bundles on disk."""
