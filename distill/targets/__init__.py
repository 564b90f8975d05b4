"""Targets of the student: a teacher's logits, live or stored, or labels; and the losses."""
