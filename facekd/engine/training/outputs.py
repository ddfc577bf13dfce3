"""What one step of training produces, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from facekd.losses import ClassShare, Neighbours, SubsetTeacher


@dataclass(frozen=True)
class SubsetSizes:
    """A teacher of some of the identities.

    Attributes:
        name: What the recipe calls it.
        teacher_size: Width of its embedding.
        images: Training images of its identities.
        columns: Their classes, int64 ``(subset,)``.
        share: Its part of the loss, before all are brought to a sum of 1; None where the recipe gives none.
        class_weights: Its classifier, ``(subset, teacher_size)``, where a loss needs it.
    """

    name: str
    teacher_size: int
    images: int
    columns: Tensor
    share: float | None = None
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Sizes:
    """What the objective of a run is built for.

    Attributes:
        classes: Identities in the training data.
        embedding_size: Width of the student's embedding.
        teacher_size: Width of the teacher's; that of the student where there is no teacher.
        batch_size: Images in a step.
        steps_per_epoch: To turn a warm-up in epochs into steps.
        projected: Whether a projector to the teacher's width stands on the student's embedding while training.
        subsets: The teachers of some of the identities.
        seed: Of what a part draws.
        class_share: The classes of a classifier this process is to hold, where several share them out.
    """

    classes: int
    embedding_size: int
    teacher_size: int
    batch_size: int
    steps_per_epoch: int
    projected: bool = False
    subsets: tuple[SubsetSizes, ...] = ()
    seed: int = 0
    class_share: ClassShare | None = None


@dataclass(frozen=True)
class StepOutputs:
    """The inputs a loss may name as its positional parameters.

    Attributes:
        student: Raw student embeddings, float32 ``(batch, dim)``.
        teacher: Raw teacher embeddings of the same images, ``(batch, teacher_dim)``.
        labels: Classes, int64 ``(batch,)``; a negative one says the image has no label, and losses that take labels
            skip it.
        class_weights: The classifier the student is trained on, ``(classes, dim)``; of all classes, of those this
            process holds, or for a loss with a sample of these.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``.
        log_variance: Log sigma squared of what the loss with a variance head looks at, about the student's embedding,
            ``(batch, dim)`` or ``(batch, 1)``.
        noise: Standard normal numbers of this step, ``(batch, dim)``; zeros outside training.
        student_thresholds: The student's cosine thresholds at EKD's false-positive rates, ``(anchors,)``.
        teacher_thresholds: The teacher's.
        centres: AdaDistill's class centres, ``(classes, dim)``.
        assistant: Raw embeddings of the student's assistant, float32 ``(batch, dim)``.
        virtual_student: Raw student embeddings of mixtures of two images of the step, ``(virtual, dim)``.
        virtual_teacher: Raw teacher embeddings of the same pixels, ``(virtual, teacher_dim)``.
        virtual_labels: The classes of the two images of each mixture, int64 ``(virtual, 2)``.
        virtual_shares: Share of the first image in each, float32 ``(virtual,)``.
        neighbours: The candidates of each class, where a loss is taken among them.
        class_share: The classes this process sums over, where several share them out.
        subset_teachers: Raw embeddings ``(batch, teacher_dim)`` of each teacher of a subset; zeros for other images.
        subsets: These teachers with what a loss holds of them.
        all_labelled: Whether every image is known to have a label. Nobody has to wait for the device then, which is
            asked otherwise which of them have.
    """

    student: Tensor
    teacher: Tensor | None
    labels: Tensor
    class_weights: Tensor | None = None
    teacher_class_weights: Tensor | None = None
    log_variance: Tensor | None = None
    noise: Tensor | None = None
    student_thresholds: Tensor | None = None
    teacher_thresholds: Tensor | None = None
    centres: Tensor | None = None
    assistant: Tensor | None = None
    virtual_student: Tensor | None = None
    virtual_teacher: Tensor | None = None
    virtual_labels: Tensor | None = None
    virtual_shares: Tensor | None = None
    neighbours: Neighbours | None = None
    class_share: ClassShare | None = None
    subset_teachers: tuple[Tensor, ...] = ()
    subsets: tuple[SubsetTeacher, ...] = ()
    all_labelled: bool = False

    def of_labelled(self, rows: Tensor) -> Tensor:
        """The rows of a field that belong to images with a label.

        Example:
            >>> import torch
            >>> StepOutputs(torch.zeros(2, 1), None, torch.tensor([5, -1])).of_labelled(torch.tensor([1.0, 2.0]))
            tensor([1.])
        """
        return rows if self.all_labelled else rows[self.labels >= 0]

    @property
    def of_teacher(self) -> Tensor:
        """The teacher's embeddings, for what is only built where there is a teacher.

        Raises:
            ValueError: There are none.
        """
        if self.teacher is None:
            raise ValueError("teacher is None, expected its embeddings")
        return self.teacher


FIELDS = tuple(field.name for field in fields(StepOutputs))
PER_IMAGE = ("student", "teacher", "labels", "log_variance", "noise", "assistant")
OF_STUDENT = ("student", "virtual_student")
"""Embeddings of the student, which a projector to the teacher's width stands on."""
