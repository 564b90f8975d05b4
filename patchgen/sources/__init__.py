"""Where pixels come from: photos, synthetic images, packed images."""
