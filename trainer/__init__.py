"""Makes pose models: data, nets, losses, the training loop, evaluation and export to bundles."""
