"""Students distilled from a frozen patch set. Patches flow through these rooms into a run directory:

- ``config``: YAML in, one frozen value out; each component below owns its group.
- ``data``: verified shards or labelled images in, a view out: which samples a step sees, augmented by ``augment``.
- ``models``: a name in, a network out. ``weights``: a file in, a state dict and what is known of it out;
  ``published`` knows how others name parameters.
- ``teacher``: the frozen network that labels. ``labels``: logits it gave before. ``lesson``: which of the two.
- ``targets``: what a batch's logits are compared with. ``losses``: logits and target in, a number out.
- ``engine``: networks in, the same ones faster out. ``optim``: optimisers and schedules.
- ``loop``: one step after another. ``ranks``: the processes that take it together; ``parallel``: their network;
  ``launch``: what says who they are.
- ``evaluate``, ``judge``: labelled images and networks in, what these are worth out.
- ``checkpoint``: a run's state to disk and back. ``session``: log, checkpoints and signals around the steps.
- ``run``, ``teach``, ``label``, ``measure``, ``convert``: the wiring of a command each; ``runs`` is what they share.
- ``table``: a publication's table in, commands and a page of their results out; ``reproduce`` runs it, ``prices``
  says what it would cost, as ``estimate`` does of one run.
- ``cli``: the command line.

``randomness`` turns (seed, purpose, position) into draws, so that resuming is exact.
``openmp`` says how torch's threads wait, before torch is loaded.
"""

from distill.runtime.openmp import limit_spinning

limit_spinning()
