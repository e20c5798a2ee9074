"""ksmtrace: see what Linux Kernel Samepage Merging does."""

__version__ = "0.1.0"
