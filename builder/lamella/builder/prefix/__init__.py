"""Where an environment is, its interpreter and its folders."""
