"""Local projects as wheels."""
