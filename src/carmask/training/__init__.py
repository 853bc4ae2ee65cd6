"""Settings, losses, checkpoints and the training loop."""
