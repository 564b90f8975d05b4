"""How samples are read and batched: the ``data`` group of a config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.support.field_values import HomePath


class BatchConfig(BaseModel):
    """Batches, and the seed of which samples they hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 512
    view_seed: Annotated[
        int | None, Field(ge=0, lt=2**53, description="of order and augmentation; default: train.seed, or labels'")
    ] = None


class DataConfig(BatchConfig):
    """Batches of patches, and how these are read."""

    passes: Annotated[
        int, Field(ge=1, description="times each augmented batch is seen; its logits are the teacher's first ones")
    ] = 1
    cache: Annotated[
        Literal["auto", "gpu", "ram", "disk", "none"],
        Field(description="where decoded patches are held, none: streamed; auto: the first that is large enough"),
    ] = "auto"
    window: Annotated[int, Field(ge=1, description="shards whose patches are shuffled together when streamed")] = 16
    cache_dir: Annotated[
        HomePath | None,
        Field(description="folder that keeps decoded sets; default: single-image-distillation in ~/.cache"),
    ] = None
    workers: Annotated[int, Field(ge=0, le=256, description="decoding processes; 0: in this one")] = 2


class SupervisedDataConfig(BatchConfig):
    """Batches of labelled images."""

    size: Annotated[
        int | None, Field(ge=8, le=1024, description="pixels a side; images are resized and cropped to it")
    ] = None
