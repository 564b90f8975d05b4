"""How samples are read and batched: the ``data`` group of a config."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.support.validation import HomePath


class BatchConfig(BaseModel):
    """The size of batches, and the seed that determines the samples of each batch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    batch_size: int = Field(default=512, ge=2, le=65_536)
    view_seed: int | None = Field(default=None, ge=0, lt=2**53)
    "seed of order and augmentation; default: train.seed, or the seed in the stored logits"


class DataConfig(BatchConfig):
    """Batches of patches, and how patches are read."""

    passes: int = Field(default=1, ge=1)
    "number of times that each augmented batch is used; the teacher computes its logits once, in the first pass"
    cache: Literal["auto", "gpu", "ram", "disk", "none"] = "auto"
    "where decoded patches are kept; none: streamed from the shards; auto: the first place that is large enough"
    window: int = Field(default=16, ge=1, description="shards whose patches are shuffled together when streamed")
    cache_dir: HomePath | None = None
    "folder that keeps decoded patch sets; default: single-image-distillation in ~/.cache"
    workers: int = Field(default=2, ge=0, le=256, description="decoding processes; 0: decode in the main process")


class SupervisedDataConfig(BatchConfig):
    """Batches of labelled images."""

    size: int | None = Field(default=None, ge=8, le=1024)
    "width and height in pixels to which images are resized and cropped"
