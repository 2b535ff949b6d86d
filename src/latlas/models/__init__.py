"""What turns images into codes and back: the protocols, the VAE assembly, its architectures, adapters for others."""
