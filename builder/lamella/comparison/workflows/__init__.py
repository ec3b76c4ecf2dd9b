"""The ways from an environment to nodes, one module each."""
