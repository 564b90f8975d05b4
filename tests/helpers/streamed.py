"""Run ``distill`` as ``doubled`` does, with evaluation images that are never kept in memory."""

from distill.data import labelled
from tests.helpers.doubled import main

if __name__ == "__main__":
    labelled.MAX_HELD_BYTES = 0
    main()
