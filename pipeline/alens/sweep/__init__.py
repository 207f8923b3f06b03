"""Sweeps: many fits of one cache, those that read the same rows from one read, and a table of how they do."""
