"""Records of installers: distributions, conda packages, requirements."""
