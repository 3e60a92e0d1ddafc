"""A page to look at and to listen to: one folder that a browser opens from disk."""

from xacle_stack.results.page.record import ClipEntry, Plot, Report
from xacle_stack.results.page.write import AudioChoice, write_page

__all__ = ["AudioChoice", "ClipEntry", "Plot", "Report", "write_page"]
