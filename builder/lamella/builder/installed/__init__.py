"""What installers recorded: distributions, conda packages, requirements."""
