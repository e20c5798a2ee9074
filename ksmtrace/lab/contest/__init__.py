"""Scanners at their own pace over the same changing memory: what each saves, when, for what CPU."""
