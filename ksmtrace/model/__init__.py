"""The reference scanner: simulated memory and daemons that do what the real ones do."""

from ksmtrace.model.clock import Clock
from ksmtrace.model.ksm import KnobRefused, KsmScanner
from ksmtrace.model.memory import Memory, MemoryFault, Mm
from ksmtrace.model.uksm.scanner import UksmScanner

__all__ = ["Clock", "KnobRefused", "KsmScanner", "Memory", "MemoryFault", "Mm", "UksmScanner"]
