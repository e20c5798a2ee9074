"""The fast engine: the reference scanner again, over arrays and compiled; docs/fast-engine.md."""
