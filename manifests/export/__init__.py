"""Write the last files of a build, and files for other tools: Hugging Face Hub, Croissant, wids, DALI, BagIt."""
