"""Files beside an environment, as OCI artifacts: attach, list, fetch."""
