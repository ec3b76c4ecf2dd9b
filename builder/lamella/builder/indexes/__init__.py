"""Package indexes and conda channels as this machine's tools are configured: which, in which order, with which credentials."""
