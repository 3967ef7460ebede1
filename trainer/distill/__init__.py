"""Learning from another net, or from a larger form of oneself."""
