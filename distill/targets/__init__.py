"""Targets of the student (logits of a live teacher, stored logits, or labels), and the distillation losses."""
