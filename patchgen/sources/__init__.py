"""Read the images that patches come from: photos, synthetic images, packed images."""
