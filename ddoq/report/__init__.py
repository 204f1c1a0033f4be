"""What a run says for itself: rows, the terminal table, figures and one self-contained HTML page. No torch."""

from ddoq.report.write import write_report

__all__ = ["write_report"]
