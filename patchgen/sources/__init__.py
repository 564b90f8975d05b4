"""Photos and other images that patches are made of."""
