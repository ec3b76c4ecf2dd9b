"""Programs that a comparison starts for itself: registry, index, container engines, commands."""
