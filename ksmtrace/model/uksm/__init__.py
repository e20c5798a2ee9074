"""UKSM as a program to be read, over the same simulated memory as KSM."""

from ksmtrace.model.uksm.governors import GOVERNORS
from ksmtrace.model.uksm.quirks import AS_INTENDED, AS_SHIPPED, Quirks
from ksmtrace.model.uksm.scanner import UksmScanner

__all__ = ["AS_INTENDED", "AS_SHIPPED", "GOVERNORS", "Quirks", "UksmScanner"]
