"""Pushes that follow changes of an environment and of local code."""
