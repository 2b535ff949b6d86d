"""Support Sets: sectors of a latent space, and one image for each."""
