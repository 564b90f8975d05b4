"""Bounds on untrusted bytes, checked before a library decodes them."""
