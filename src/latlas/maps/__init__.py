"""Linear maps from one latent space to another."""
