"""Students distilled from a frozen patch set. Patches flow through these rooms into a run directory:

- ``config``: YAML in, one frozen value out; each component below owns its group.
- ``tars``: WebDataset tars in, raw samples out.
- ``patches``: verified shards in, a resident tensor of patches and the order to see them in out.
- ``augment``: a batch and its draws in, the pixels both networks see out.
- ``models``: a name in, a network out. ``weights``: a file in, a state dict and what is known of it out.
- ``teacher``: the frozen network that labels. ``losses``: both networks' logits in, a number out.
- ``optim``: optimisers and schedules. ``loop``: one step after another.
- ``evaldata``, ``evaluate``: labelled images in, top-1 out. ``judge``: both networks measured.
- ``checkpoint``: a run's state to disk and back. ``session``: log, checkpoints and signals around the steps.
- ``run``: the wiring. ``cli``: the command line.

``randomness`` turns (seed, purpose, position) into a generator, so that resuming is exact.
"""
