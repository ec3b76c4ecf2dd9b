"""The laptop: scan an environment, plan and build its layers, push them."""
