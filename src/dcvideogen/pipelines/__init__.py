"""Text-to-video and image-to-video: diffusers pipelines around an adapted transformer and our autoencoder."""
