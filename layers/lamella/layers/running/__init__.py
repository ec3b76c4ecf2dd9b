"""One command in an environment."""
