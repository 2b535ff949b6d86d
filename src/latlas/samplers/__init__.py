"""Where new codes come from: prior, moments, Gaussian, mixture, second stage; each as it is or renormalised."""
