"""Prepare the student of ``distill train``: the weights it starts from, and its features for feature losses."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from torch import nn

from distill.config.schema import Config
from distill.errors import DistillError
from distill.models.features import require_gradients
from distill.targets.features import FeatureMatch, match_features
from distill.targets.losses import feature_terms, terms_of
from distill.targets.teacher import Network
from distill.weights.files import load_weights
from distill.weights.start import copy_classifier, copy_weights, describe_blocks, load_start
from manifests.format.digest import file_digest

FROM_TEACHER = Path("teacher")  # value of student.init
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """The student of a run: ``network``, or the network with features, and what identifies its first weights."""

    network: nn.Module
    match: FeatureMatch | None = None
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)  # for the identity of the run
    described: dict[str, Any] = dataclasses.field(default_factory=dict)  # for the summary


def require_complete(config: Config) -> None:
    """Check that the config has all that feature losses, ``student.init`` and ``student.head`` need."""
    require_one_teacher(config, several=bool(config.teacher.others))
    _require_features(config)
    _require_start(config)


def require_one_teacher(config: Config, *, several: bool) -> None:
    """Check that nothing in the config needs the modules of one teacher if there are several teachers."""
    student = config.student
    needs = {
        "a feature loss": bool(feature_terms(config.loss)),
        "student.init: teacher": student.init == FROM_TEACHER,
        "student.head: teacher": student.head is not None,
    }
    if several and (what := next((what for what, needed in needs.items() if needed), None)):
        raise DistillError(f"{what} needs one teacher, but the run has several; omit teacher.others, or omit it")


def _require_features(config: Config) -> None:
    """Check that the features of feature losses are known in every step, and that the loss is complete."""
    features = feature_terms(config.loss)
    if not features:
        return
    if config.teacher.logits is not None and config.teacher.weights is None:
        found = "a feature loss needs the teacher's modules, but only teacher.logits is set"
        raise DistillError(f"loss: {found}; add the teacher's weight file with --teacher FILE, or omit the loss")
    if config.teacher.logits is None and config.data.passes > 1:
        found = (
            f"data.passes {config.data.passes} keeps logits of the first pass only, but a feature loss needs features"
        )
        raise DistillError(f"loss: {found}; set data.passes 1, or store the features with distill make-logits")
    if len(features) == len(terms_of(config.loss)) and config.student.head is None:
        action = "add a loss of logits to the list, such as {name: kl, temperature: 4}, or set student.head: teacher"
        raise DistillError(f"loss: feature losses do not train the classifier of the student; {action}")


def _require_start(config: Config) -> None:
    """Check that the weights from which the student starts are known."""
    student, teacher = config.student, config.teacher
    needs = {"init": student.init == FROM_TEACHER, "head": student.head is not None}
    key = next((key for key, needed in needs.items() if needed), None)
    if key is not None and teacher.logits is not None and teacher.weights is None:
        found = f"student.{key} needs the teacher's weights, but only teacher.logits is set"
        raise DistillError(f"{found}; add the teacher's weight file with --teacher FILE, or omit student.{key}")
    if student.init is not None and student.init != FROM_TEACHER:
        load_weights(student.init)


def prepare_student(
    network: nn.Module, config: Config, teacher: Network | None, module: nn.Module | None, size: int
) -> Prepared:
    """Give the new student ``network`` its first weights, and the features that the losses of ``config`` need.

    ``module`` is the student of a Python program, or None. Training images have ``size`` px.
    """
    features = feature_terms(config.loss)
    require_one_teacher(config, several=teacher is not None and bool(teacher.others))
    inputs, described = _start(network, config, teacher, module)
    if not features or teacher is None:
        return Prepared(network=network, inputs=inputs, described=described)
    sizes = size, teacher.size or size
    match = match_features(features, network, teacher.model, sizes, config.train.seed)
    if len(features) == len(terms_of(config.loss)):
        require_gradients(match.student, size)
    return Prepared(network=match.student, match=match, inputs=inputs, described=described)


def _start(
    network: nn.Module, config: Config, teacher: Network | None, module: nn.Module | None
) -> tuple[dict[str, str], dict[str, Any]]:
    student, inputs = config.student, {}
    described: dict[str, Any] = {}
    if student.init is not None:
        if student.init == FROM_TEACHER and teacher is not None:
            source, what, sha256 = teacher.model, "the teacher", teacher.sha256
        else:
            source, what = load_start(student.init, student.arch, module), str(student.init)
            sha256 = file_digest(student.init)
        blocks = copy_weights(network, source, what)
        logger.info(f"the student starts from {what}: {describe_blocks(blocks)}")
        inputs["initial_sha256"] = sha256
        described["student_init"] = {"from": student.init.name, "sha256": sha256, "blocks": blocks}
    if student.head is not None and teacher is not None:
        copy_classifier(network, teacher.model, config.teacher.num_classes)
        described["student_head"] = student.head
    return inputs, described
