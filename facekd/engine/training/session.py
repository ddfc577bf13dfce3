"""The moving parts of a run, built from its recipe, and their way into a checkpoint and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from facekd.data.identities import IdentitySource
from facekd.data.loading import TrainingImages
from facekd.engine.training.checkpoint import Checkpoint, flatten, optimizer_tensors, restore_optimizer, select
from facekd.engine.training.distributed import ALONE, World
from facekd.engine.training.inheritance import Classifier
from facekd.engine.training.objective import OWN, Objective
from facekd.engine.training.plan import Plan, architecture_of, pair_sizes
from facekd.engine.training.series import Series
from facekd.engine.training.split import Ask, own_part, split_tables, whole_tables
from facekd.engine.training.subset import Subset
from facekd.errors import CheckpointError
from facekd.models.architecture import Architecture
from facekd.models.backbone import synchronised
from facekd.models.embedder import Embedder
from facekd.models.heads import FrozenClassifier, VarianceHead
from facekd.models.preprocessing import Preprocessing
from facekd.recipe import Recipe, recipe_digest, training_digest


@dataclass
class Session:
    """Everything a step reads or changes.

    Attributes:
        recipe: What was asked for.
        plan: Its size.
        source: The training images.
        dataset: The same, as steps see them.
        device: Where tensors live.
        student: The backbone in training.
        preprocessing: The student's.
        objective: The losses with their own modules.
        optimizer: Over the student and the objective's trained modules.
        teacher: The teacher, where there is one.
        cached: Teacher embeddings ``(count, views, dim)`` of what the steps show, where they were computed before.
        classifier: The inherited classifier and its proof, where there is one.
        subsets: Teachers of some of the identities.
        average: Running average of the student, where the recipe wants one.
        series: The snapshots of the teacher in the order of the student's epochs, where it learns from those.
        average_head: Running average of the objective's variance head, where there are both.
        notes: What a user should know of how it was set up.
        superclasses: Superclass of each identity, ``(identities,)``, where batches are drawn by it.
        step: Steps taken.
        evaluated: Step of the last evaluation.
        best: Best figure so far and the step it was met at.
        world: The processes that take the steps together.
        halted: 1 once a step was not finite, on the device, else 0; the optimizer updates nothing from then on.
    """

    recipe: Recipe
    plan: Plan
    source: IdentitySource
    dataset: TrainingImages
    device: torch.device
    student: nn.Module
    preprocessing: Preprocessing
    objective: Objective
    optimizer: torch.optim.Optimizer
    teacher: Embedder | None = None
    cached: np.ndarray | None = None
    classifier: Classifier | None = None
    subsets: tuple[Subset, ...] = ()
    average: nn.Module | None = None
    series: Series | None = None
    average_head: VarianceHead | None = None
    notes: tuple[str, ...] = ()
    superclasses: np.ndarray | None = None
    step: int = 0
    evaluated: int = 0
    best: dict[str, float] = field(default_factory=dict)
    world: World = ALONE
    halted: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.halted = torch.zeros((), device=self.device)
        self.optimizer.found_inf = self.halted  # type: ignore[attr-defined]

    def join(self, world: World) -> None:
        """Become one of the processes of ``world``, each with the weights and superclasses rank 0 has.

        Of an inherited classifier each has the classes it sums over, and rank 0 keeps all beside, to be saved.
        """
        self.world = world
        inherited = self.objective.share is not None and self.objective.own is None
        if inherited and self.classifier is not None and not world.leads:
            self.classifier = replace(self.classifier, class_weights=torch.empty(0))
        if world.size > 1 and self.device.type == "cuda":
            self.student = synchronised(self.student)
        if self.superclasses is not None:
            self.superclasses = world.same(torch.from_numpy(self.superclasses)).numpy()
        world.follow(self.student, *(kept for _, kept in self.averages()))
        self.agree()

    def agree(self) -> None:
        """Give every process what rank 0 has beside the student, but the classes that are each process's own."""
        self.world.follow(self.objective, besides=self.objective.split)

    @property
    def all_labelled(self) -> bool:
        """Whether no image of the run is a blend of two people."""
        return self.recipe.data.augment.mix == 0

    @property
    def teacher_now(self) -> Embedder | None:
        """Whom the next step learns from: of a series, the snapshot of the step's epoch."""
        return self.teacher if self.series is None else self.series.at(self.step // self.plan.steps_per_epoch)

    @property
    def teacher_digest(self) -> str | None:
        """Of the teacher's file, or of all of a series."""
        if self.series is not None:
            return self.series.digest
        return None if self.teacher is None else self.teacher.digest

    @property
    def deployed(self) -> nn.Module:
        """The weights that are measured and saved: the average where one is kept."""
        return self.student if self.average is None else self.average

    @property
    def architecture(self) -> Architecture:
        """What is measured and saved."""
        return architecture_of(self.recipe.student, self.teacher)

    @property
    def deployed_head(self) -> VarianceHead | None:
        """The variance head that goes with :attr:`deployed`, where the run trains one."""
        return self.objective.head if self.average_head is None else self.average_head

    def averages(self) -> list[tuple[str, nn.Module]]:
        """The running averages that are kept, by name."""
        held = (("average", self.average), ("average_head", self.average_head))
        return [(name, module) for name, module in held if module is not None]

    def facts(self) -> dict[str, Any]:
        """What a resumed run must share with the one that was stopped."""
        return {
            "recipe": training_digest(self.recipe),
            "data": self.source.digest,
            "teacher": self.teacher_digest,
            "classifier": "" if self.classifier is None else self.classifier.digest,
            "subsets": [[one.teacher.digest, one.source.digest] for one in self.subsets],
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "processes": self.world.size,
        }

    @property
    def split(self) -> dict[str, torch.Tensor]:
        """What this process holds its own classes of, by its name in a checkpoint."""
        return split_tables(self.objective, self.optimizer)

    def checkpoint(self, ask: Ask) -> Checkpoint:
        """The state after the steps taken so far.

        Args:
            ask: Of the other processes, for the classes they hold.
        """
        tensors = flatten("student", self.student.state_dict()) | flatten("objective", self.objective.state_dict())
        for name, module in self.averages():
            tensors |= flatten(name, module.state_dict())
        facts = {**self.facts(), "best": self.best, "evaluated": self.evaluated}
        tensors |= optimizer_tensors(self.optimizer)
        blocks = whole_tables(self.split, self.objective.share, ask)
        return Checkpoint(self.step, {name: tensors[name] for name in tensors if name not in blocks}, facts, blocks)

    def trained_classifier(self, ask: Ask) -> torch.Tensor | None:
        """The rows of all classes of a classifier in training, in main memory.

        Args:
            ask: As of :meth:`checkpoint`.
        """
        if self.objective.own is None:
            return None
        whole = [table for name, table in whole_tables(self.split, self.objective.share, ask).items() if OWN in name]
        return torch.cat(list(whole[0].rows())) if whole else self.objective.own.class_weights.detach().cpu()

    def restore(self, saved: Checkpoint) -> list[str]:
        """Take up a checkpoint.

        Returns:
            Warnings: why the run may not be bit-identical to an unbroken one.

        Raises:
            CheckpointError: It belongs to another recipe, data set or teacher, or holds other tensors.
        """
        now = self.facts()
        was = {"processes": 1, "subsets": [], "classifier": now["classifier"], "torch": now["torch"], **saved.facts}
        for name in ("recipe", "data", "teacher", "classifier", "subsets"):
            if was.get(name) != now[name]:
                what = f"the {name} changed since it was written ({was.get(name)}, now {now[name]})"
                raise CheckpointError(f"checkpoint of step {saved.step}", what, "resume with what the run began with")
        held = [("student", self.student), ("objective", self.objective), *self.averages()]
        tensors = own_part(saved.tensors, self.objective, self.optimizer)
        try:
            for name, module in held:
                module.load_state_dict(_with_own_classifiers(module, select(name, tensors)))
            restore_optimizer(self.optimizer, tensors)
            self.evaluated, self.best = int(saved.facts["evaluated"]), dict(saved.facts["best"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            what = f"holds other things than a run of this recipe: {' '.join(str(error).split())[:200]}"
            raise CheckpointError(f"checkpoint of step {saved.step}", what, "start again with --overwrite") from None
        self.step = saved.step
        return [
            f"resume is not bit-exact: saved with {name} {was[name]}, running with {now[name]}"
            for name in ("torch", "threads", "device", "processes")
            if was[name] != now[name]
        ]


def _with_own_classifiers(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state with the frozen classifiers the module saves and no others: several processes save none."""
    frozen = {f"{name}.class_weights" for name, held in module.named_modules() if isinstance(held, FrozenClassifier)}
    own = {key: held for key, held in module.state_dict().items() if key in frozen}
    return own | {key: held for key, held in state.items() if key in own or key not in frozen}


def provenance(session: Session) -> Mapping[str, str]:
    """What a student file says of where it comes from."""
    recipe = session.recipe
    facts = {
        "recipe": recipe.name,
        "recipe_digest": recipe_digest(recipe),
        "data_digest": session.source.digest,
        "teacher_digest": session.teacher_digest or "",
        "licence_teacher": recipe.teacher.licence if recipe.teacher else "",
        "licence_data": recipe.data.licence,
        "template": recipe.data.template,
        "steps": str(session.step),
        "projector": session.plan.projector,
    }
    facts |= session.architecture.composition()
    if recipe.student.assistant is not None:
        facts["sizes"] = json.dumps(pair_sizes(session.plan))
    if session.subsets:
        facts["subset_teachers"] = json.dumps([one.facts() for one in session.subsets])
    if session.classifier is not None:
        told = {"source": session.classifier.source, "agreement": round(session.classifier.agreement, 4)}
        facts["inherited_classifier"] = json.dumps(told)
    return facts
