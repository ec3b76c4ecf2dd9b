"""The `lamella` command: a module for each verb, progress, tables. The only package that prints."""
