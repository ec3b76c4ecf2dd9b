"""Settings of the user and of the machine: folders, trust, policy."""
