"""The command line: one module per verb, progress, tables; the only place that prints."""
