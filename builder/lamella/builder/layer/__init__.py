"""Layers: plan, pack, cache, bundle."""
