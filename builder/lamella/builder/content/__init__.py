"""Everything that decides a layer's bytes, and nothing else."""
