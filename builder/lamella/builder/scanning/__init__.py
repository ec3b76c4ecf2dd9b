"""An environment as packages, with findings."""
