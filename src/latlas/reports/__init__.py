"""Study results to JSON, figures and one self-contained page."""
