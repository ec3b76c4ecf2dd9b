"""An environment on this disk as an archive or a folder, in one step."""
