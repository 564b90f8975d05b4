"""Read the images that patches are made from: photos, images to pack, synthetic images."""
