"""DC-AE-V, the deep compression video autoencoder."""
