"""What runs say for themselves: rows, groups of them, tables, charts, sections, pages. No torch.

``run_page`` reports one run when it ends, ``many`` any set of runs; both are lists of sections.
"""
