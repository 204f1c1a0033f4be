"""What a run says for itself: rows, the terminal table, figures and one self-contained HTML page. No torch."""

__all__ = ["write_report"]


def __getattr__(name: str):
    if name in __all__:  # imported late, so that the commands beside it do not wait for figures
        from ddoq.report import write

        return getattr(write, name)
    raise AttributeError(f"module 'ddoq.report' has no attribute '{name}'")
