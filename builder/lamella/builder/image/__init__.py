"""The documents of a push."""
