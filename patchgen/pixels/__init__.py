"""Compute patches with the same bits on every CPU: geometry, warp, color jitter, encoding."""
