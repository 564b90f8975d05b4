"""Pixel arithmetic, bit-exact on every CPU: geometry, warp, color jitter, encoding."""
