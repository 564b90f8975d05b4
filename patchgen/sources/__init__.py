"""Read or generate the images of a set: photos, images to pack, synthetic images."""
