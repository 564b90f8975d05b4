"""What the student's logits are compared with, and the losses that compare them."""
