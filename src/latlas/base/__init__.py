"""Words that every other package shares: errors, seeds, provenance, artifact folders, shape names."""
