"""Students distilled from a frozen patch set: see ARCHITECTURE.md for the folders.

Importing this package sets how the threads of OpenMP wait, before torch is loaded.
"""

from distill.runtime.openmp import limit_spinning

limit_spinning()
