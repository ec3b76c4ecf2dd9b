"""Missing layers into the store."""
