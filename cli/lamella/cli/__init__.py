"""The command: one module per verb, progress and tables. The only place that prints."""
