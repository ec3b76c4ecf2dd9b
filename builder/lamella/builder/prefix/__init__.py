"""Location of an environment, its interpreter and its folders."""
