"""From a source and a recipe to the shards of a patch set."""
