"""Datasets of clips and the files that hold latents."""
