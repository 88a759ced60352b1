"""AE-Adapt-V: moves a trained video diffusion transformer into the latents of another autoencoder."""
