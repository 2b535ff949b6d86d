"""Exact tensor maths that knows no images and no models: streaming moments, solves, Gaussians."""
