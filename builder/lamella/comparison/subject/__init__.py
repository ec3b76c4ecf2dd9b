"""The environment that is compared: copies of it, changes to a copy, its packages as wheels, and code beside it."""
