"""Encoder/decoder pairs for the VAE assembly. A new architecture is one frozen dataclass and one line in `registry`."""
