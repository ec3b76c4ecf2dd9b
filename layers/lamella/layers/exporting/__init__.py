"""Ordinary copies of an environment, for machines without Lamella."""
