"""Freeing a store's space, and checking it against its digests."""
