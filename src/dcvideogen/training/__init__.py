"""The training loop, its checkpoints and the losses of the autoencoder."""
