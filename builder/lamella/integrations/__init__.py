"""Lamella inside other frameworks: one module for each, over the public API alone, behind an extra of its own."""
