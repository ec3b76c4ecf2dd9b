"""Files and folders that other users or programs may have changed or replaced."""
