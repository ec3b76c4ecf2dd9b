"""`lamella compare`: one environment through Lamella and through other workflows, side by side, measured."""
