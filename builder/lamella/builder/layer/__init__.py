"""Layers: plan, build, cache, bundle."""
