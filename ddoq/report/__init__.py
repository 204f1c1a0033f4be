"""What runs say for themselves: rows, tables, figures and self-contained HTML pages. No torch.

``write`` reports one run when it ends; ``command`` reports any set of runs,
``sweep_table`` those of a sweep.
"""
