"""The reference scanner: simulated memory and a ksmd that does what the kernel's does."""

from ksmtrace.model.clock import Clock
from ksmtrace.model.ksm import KnobRefused, KsmScanner
from ksmtrace.model.memory import Memory, MemoryFault, Mm

__all__ = ["Clock", "KnobRefused", "KsmScanner", "Memory", "MemoryFault", "Mm"]
