"""Every benchmark: its title, the command that records it, and its tables."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.classifier_tables import classifier_loss
from benchmarks.export_tables import exported_latency, exports, latency
from benchmarks.ijb_tables import ijb_real
from benchmarks.measuring_tables import (
    all_pairs,
    embedding_speed,
    figure_coverage,
    interval_coverage,
    lfw_models,
    templates,
)
from benchmarks.method_tables import methods
from benchmarks.tables import Record, data_loading, demo, real_faces_in_full, synthetic_hardness, synthetic_speed
from benchmarks.torture_table import torture
from benchmarks.training_tables import forecasts, student_speed, training_speed
from benchmarks.uncertainty_tables import uncertainty, uncertainty_real

LONGEST_COMMAND = "python -m benchmarks.real_faces FOLDER --study real_faces_longest --seeds 0"
LONGER_COMMAND = "python -m benchmarks.real_faces FOLDER --study real_faces_longer --seeds 0"
TERMS_COMMAND = "python -m benchmarks.real_faces FOLDER --study real_faces_terms"
ACTIVATIONS_COMMAND = "python -m benchmarks.real_faces FOLDER --study real_faces_activations --seeds 0"
CANDIDATES_COMMAND = "python -m benchmarks.real_faces FOLDER --study real_faces_candidates --seeds 0"
HARDNESS_COMMAND = "python -m benchmarks.synthetic_hardness"
LOADING_COMMAND = "python -m benchmarks.data_loading --out benchmarks/results/data_loading.json"
SPEED_COMMAND = "python -m benchmarks.synthetic_speed --out benchmarks/results/synthetic_speed.json"
PAIRS_COMMAND = "python -m benchmarks.all_pairs --out benchmarks/results/all_pairs.json"
ON_CUDA = "python -m benchmarks.{0} --device cuda {1} --out benchmarks/results/{0}_cuda.json"
EMBED_COMMAND = "python -m benchmarks.embedding_speed FOLDER --out benchmarks/results/embedding_speed.json"
LFW_COMMAND = "python -m benchmarks.lfw_models FOLDER --out benchmarks/results/lfw_models.json"
TEMPLATES_COMMAND = "python -m benchmarks.templates --out benchmarks/results/templates.json"
IJB_COMMAND = "python -m benchmarks.ijb_real FOLDER --out benchmarks/results/ijb_real.json"
EXPORTS_COMMAND = "python -m benchmarks.exports FACES FOLDER MODEL..."
LATENCY_COMMAND = "python -m benchmarks.latency"
CLASSIFIER_COMMAND = "python -m benchmarks.classifier_loss --out benchmarks/results/classifier_loss.json"
TRAINING_COMMAND = "python -m benchmarks.training_speed --out benchmarks/results/training_speed.json"
STUDENTS_COMMAND = "python -m benchmarks.student_speed --out benchmarks/results/student_speed.json"
FORECASTS_COMMAND = "python -m benchmarks.forecasts --out benchmarks/results/forecasts.json"
COVERAGE_COMMAND = "python -m benchmarks.interval_coverage --out benchmarks/results/interval_coverage.json"
FIGURES_COMMAND = "python -m benchmarks.figure_coverage --out benchmarks/results/figure_coverage.json"
UNCERTAINTY_COMMAND = "python -m benchmarks.uncertainty"
METHODS_COMMAND = "python -m benchmarks.methods{}"

SECTIONS: dict[str, tuple[str, str, Callable[[Record], str]]] = {
    "real_faces": ("Distillation on real faces", "make bench-real FACES=faces/", real_faces_in_full),
    "real_faces_terms": ("Real faces, term by term", TERMS_COMMAND, real_faces_in_full),
    "real_faces_longer": ("Real faces, three times the steps", LONGER_COMMAND, real_faces_in_full),
    "real_faces_longest": ("Real faces, six times the steps", LONGEST_COMMAND, real_faces_in_full),
    "real_faces_activations": ("ReLU and PReLU on real faces", ACTIVATIONS_COMMAND, real_faces_in_full),
    "real_faces_candidates": ("Candidates on real faces", CANDIDATES_COMMAND, real_faces_in_full),
    "methods_real": ("Methods compared on real faces", METHODS_COMMAND.format(" --faces FOLDER"), methods),
    "methods_drawn": ("Methods compared on drawn faces", METHODS_COMMAND.format(""), methods),
    "uncertainty": ("Does uncertainty tell what a face lost", UNCERTAINTY_COMMAND, uncertainty),
    "uncertainty_real": ("Uncertainty on real faces", f"{UNCERTAINTY_COMMAND}_real FOLDER", uncertainty_real),
    "demo": ("The demo on drawn faces", "python -m benchmarks.demo --record benchmarks/results/demo.json", demo),
    "exports": ("Exported files on real faces", EXPORTS_COMMAND, exports),
    "latency": ("How fast students run", LATENCY_COMMAND, latency),
    "exported_latency": (
        "How fast the exported files of real models run",
        "python -m benchmarks.exported_latency FOLDER",
        exported_latency,
    ),
    "all_pairs": ("All pairs", PAIRS_COMMAND, all_pairs),
    "all_pairs_cuda": ("All pairs on a GPU", ON_CUDA.format("all_pairs", "--images 1000000"), all_pairs),
    "templates": ("1:1 at the size of IJB-C", TEMPLATES_COMMAND, templates),
    "ijb_real": ("IJB templates of real photographs", IJB_COMMAND, ijb_real),
    "interval_coverage": ("Do intervals hold the truth", COVERAGE_COMMAND, interval_coverage),
    "figure_coverage": ("Do intervals of other figures", FIGURES_COMMAND, figure_coverage),
    "classifier_loss": ("The softmax over identities", CLASSIFIER_COMMAND, classifier_loss),
    "training_speed": ("A step of distillation", TRAINING_COMMAND, training_speed),
    "student_speed": ("What students compute", STUDENTS_COMMAND, student_speed),
    "student_speed_cuda": (
        "What students compute on a GPU",
        ON_CUDA.format("student_speed", "--batch 512"),
        student_speed,
    ),
    "forecasts": ("What a run was said to cost", FORECASTS_COMMAND, forecasts),
    "embedding_speed": ("Embedding images", EMBED_COMMAND, embedding_speed),
    "lfw_models": ("Pretrained models on LFW", LFW_COMMAND, lfw_models),
    "data_loading": ("Opening and reading records", LOADING_COMMAND, data_loading),
    "torture": ("What runs and readers stand", "make torture", torture),
    "synthetic_hardness": ("How hard drawn faces are", HARDNESS_COMMAND, synthetic_hardness),
    "synthetic_speed": ("Drawing synthetic faces", SPEED_COMMAND, synthetic_speed),
}
"""Benchmark -> its title, the command that records it, and its tables."""
