"""Sweeps: many runs as one thing.

Checked as a whole, computed once where they share, killed and repeated at will.
"""
