"""How a model is fitted: objectives, balance rules, the Lightning module, runs."""
