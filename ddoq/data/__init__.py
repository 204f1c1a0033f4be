"""Data sets in, distilled data sets out. Plain NumPy and torch."""
