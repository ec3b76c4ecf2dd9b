"""The user's own code."""
