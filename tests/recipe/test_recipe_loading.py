"""Loading recipes: every problem at once, by line and key; overrides; the canonical form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facekd.errors import RecipeError
from facekd.recipe import Recipe, load_recipe, recipe_digest, recipe_yaml, required_keys

GOOD = """\
name: a
student:
  backbone: mobilefacenet
data:
  source: synthetic
losses:
  - name: margin_softmax
optimizer:
  learning_rate: 0.1
train:
  epochs: 2
"""

TAUGHT = GOOD.replace("data:", "teacher:\n  weights: t.pt\ndata:").replace(
    "  - name: margin_softmax\n", "  - name: margin_softmax\n  - name: pad\n"
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """The problems of a recipe, without the path in front of them."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert all("\n" not in line for line in caught.value.lines)
    return [line.removeprefix(str(path)) for line in caught.value.lines]


def changed(old: str, new: str, text: str = GOOD) -> str:
    assert old in text
    return text.replace(old, new)


def test_a_minimal_recipe_gets_every_default(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.student.embedding_size, recipe.losses[0].scale, recipe.evaluate.fpr) == (512, 64.0, (1e-2, 1e-3))
    assert recipe.teacher is None


def test_all_problems_come_at_once_and_in_the_order_of_the_file(tmp_path):
    text = GOOD.replace("source: synthetic", "source: folder").replace("epochs: 2", "epochs: 0\n  batch_size: 32.5")
    text = text.replace("learning_rate: 0.1", "learning_rte: 0.1") + "zzz: 1\nschedule: {name: step}\n"
    assert refusal(written(tmp_path, text)) == [
        ":4: data.path: missing; source: folder needs one (add path: ...)",
        ":8: optimizer.learning_rate: missing (add it)",
        ":9: optimizer.learning_rte: unknown key (did you mean learning_rate?)",
        ":11: train.epochs: must be at least 1, got 0",
        ":12: train.batch_size: expected a whole number, got number 32.5",
        ":13: zzz: unknown key (known: data, description, evaluate, losses, name, optimizer, schedule, student, "
        "subsets, teacher, train)",
        ":14: schedule.milestones: missing; name: step needs them (add milestones: [10, 20])",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs: 2", "epochs: 2\n  batch_size: '32'", ":12: train.batch_size: expected a whole number, got text '32'"),
        ("epochs: 2", "epochs: 2\n  batch_size: [32]", ":12: train.batch_size: expected a whole number, got a list"),
        ("epochs: 2", "epochs: true", ":11: train.epochs: expected a whole number, got true"),
        ("epochs: 2", "epochs: 1000000000000", ":11: train.epochs: must be at most 100000, got 1000000000000"),
        ("epochs: 2", "epochs: -1", ":11: train.epochs: must be at least 1, got -1"),
        ("epochs: 2", "epochs: 010", ":11: train.epochs: 010 may mean 8 or 10"),
        ("epochs: 2", "epochs: 12:30:45", ":11: train.epochs: expected a whole number, got text '12:30:45'"),
        ("epochs: 2", "epochs: 2\n  batch_size: 1", ":12: train.batch_size: must be at least 2, got 1"),
        ("learning_rate: 0.1", "learning_rate: .nan", ":9: optimizer.learning_rate: must be finite, got nan"),
        ("learning_rate: 0.1", "learning_rate: .inf", ":9: optimizer.learning_rate: must be finite, got inf"),
        ("learning_rate: 0.1", "learning_rate: 0", ":9: optimizer.learning_rate: must be greater than 0, got 0"),
        ("learning_rate: 0.1", "learning_rate: -1", ":9: optimizer.learning_rate: must be greater than 0, got -1"),
        ("learning_rate: 0.1", "learning_rate: !!float 1", ":9: optimizer.learning_rate: tag !!float is not allowed"),
        ("name: a", "name: ../a", ":1: name: expected letters, digits, dots, underscores and hyphens"),
        ("name: a", "name: 1", ":1: name: expected text, got number 1 (put quotes around it)"),
        ("name: a", "name: a\nname: b", ":2: name: given twice, on lines 1 and 2 (keep one)"),
        ("source: synthetic", "source: folder\n  path: ~/faces", ":6: data.path: ~ and ${...} are not expanded"),
        ("source: synthetic", "source: synthetic\n  path: x", ":6: data.path: has no meaning with source: synthetic"),
        ("source: synthetic", "source: auto", ":4: data.path: missing; source: auto needs one (add path: ...)"),
        ("source: synthetic", "source: rec\n  path: x", ":5: data.source: unknown value: text 'rec'"),
        (
            "source: synthetic",
            "source: record\n  path: x\n  images: y",
            ":7: data.images: has no meaning with source: record (remove it, or write source: list)",
        ),
        (
            "source: synthetic",
            "source: tar\n  path: x\n  images: y",
            ":7: data.images: has no meaning with source: tar",
        ),
        ("data:\n  source: synthetic", "data:", ":4: data: expected a mapping, got null"),
        ("- name: margin_softmax", "- name: pda", ":7: losses.0.name: unknown value: text 'pda' (did you mean pad?)"),
        ("- name: margin_softmax", "- weight: 1", ":7: losses.0.name: missing (name the loss)"),
        ("- name: margin_softmax", "- l2", ":7: losses.0: expected a mapping, got text 'l2'"),
        ("- name: margin_softmax", "[]", ":6: losses: empty (give at least one)"),
        ("margin_softmax", "l2", ":7: losses.0: l2 needs a teacher (add teacher: {weights: FILE})"),
        (
            "margin_softmax",
            "margin_softmax\n    class_weights: teacher",
            ":7: losses.0: margin_softmax with class_weights: teacher needs a teacher",
        ),
        ("margin_softmax", "margin_softmax\n    margin: 1.6", ":8: losses.0.margin: must be less than 1.571, got 1.6"),
        ("margin_softmax", "margin_softmax\n    scale: 0", ":8: losses.0.scale: must be greater than 0, got 0"),
        (
            "margin_softmax",
            "margin_softmax\n    candidates: 9",
            ":8: losses.0.candidates: 9, but a classifier in training has no lasting neighbours",
        ),
        (
            "margin_softmax",
            "margin_softmax\n    sample_rate: 0",
            ":8: losses.0.sample_rate: must be greater than 0, got 0",
        ),
        (
            "margin_softmax",
            "margin_softmax\n    sample_rate: 2",
            ":8: losses.0.sample_rate: must be at most 1, got 2",
        ),
        (
            "data:\n  source: synthetic\nlosses:\n  - name: margin_softmax",
            "teacher: {weights: t}\ndata:\n  source: synthetic\nlosses:\n  - name: margin_softmax\n"
            "    class_weights: teacher\n    sample_rate: 0.1",
            ":10: losses.0.sample_rate: 0.1, but a frozen classifier has no rows to spare from training "
            "(write candidates: N, or class_weights: own)",
        ),
        (
            "margin_softmax",
            "margin_softmax\n    sample_rate: 0.1\n  - name: dul",
            ":8: losses.0.sample_rate: 0.1, but dul looks at every row of the classifier (remove it, or dul)",
        ),
        ("margin_softmax", "margin_softmax\n    weight: 0", ":6: losses: the weight of every loss is 0"),
        (
            "margin_softmax",
            "margin_softmax\n    ramp_epochs: 1",
            ":7: losses.0.start_epoch: no loss is there at the first step",
        ),
        ("margin_softmax", "margin_softmax\n  - name: margin_softmax", ":8: losses.1.name: margin_softmax is already"),
        ("data:", "teacher: {weights: t}\ndata:", ":4: teacher: no loss uses the teacher"),
        ("backbone", "normalize: 127\n  backbone", ":3: student.normalize: unknown value: number 127"),
        ("epochs: 2", "epochs: 2\nschedule: {warmup_epochs: 3}", ":12: schedule.warmup_epochs: 3 epochs of warm-up"),
        ("epochs: 2", "epochs: 2\nschedule: {gamma: 0.5}", ":12: schedule.gamma: has no effect with name: constant"),
        (
            "epochs: 2",
            "epochs: 2\n  freeze_norm_epochs: 3",
            ":12: train.freeze_norm_epochs: 3 epochs of frozen statistics",
        ),
        ("synthetic", "synthetic\n  augment: {mix: 0.5}", ":6: data.augment.mix: blends of two people have no label"),
        ("epochs: 2", "epochs: 2\nevaluate: {select: best}", ":12: evaluate.select: best needs something to measure"),
        (
            "epochs: 2",
            "epochs: 2\nevaluate: {sets: [{synthetic: {first_identity: 199}}]}",
            ":12: evaluate.sets.0.synthetic: shares identities with the training data (0 to 199)",
        ),
        ("epochs: 2", "epochs: 2\nevaluate: {sets: [{path: a, synthetic: {}}]}", ":12: evaluate.sets.0: give exactly"),
        ("epochs: 2", "epochs: 2\nevaluate: {flip: no}", ":12: evaluate.flip: expected true or false, got text 'no'"),
        ("epochs: 2", "epochs: 2\n  learning_rate: 3", ":12: train.learning_rate: unknown key here (it belongs at"),
        (
            "epochs: 2",
            "epochs: 2\n  temperature: 3",
            ":12: train.temperature: unknown key here (it belongs at losses.l",
        ),
        (
            "backbone: mobile",
            "options: {a: [1]}\n  backbone: x",
            ":3: student.options.a: expected a number, text, true",
        ),
    ],
)
def test_one_problem(tmp_path, old, new, line):
    lines = refusal(written(tmp_path, changed(old, new)))
    assert len(lines) == 1, lines
    assert lines[0].startswith(line)


def test_rules_between_sections_are_told_beside_other_problems(tmp_path):
    text = changed("margin_softmax", "cosine").replace("epochs: 2", "epochs: 0")
    assert refusal(written(tmp_path, text)) == [
        ":7: losses.0: cosine needs a teacher (add teacher: {weights: FILE})",
        ":11: train.epochs: must be at least 1, got 0",
    ]


def test_class_weights_of_a_teacher_need_a_use(tmp_path):
    text = TAUGHT.replace("weights: t.pt", "weights: t.pt\n  class_weights: head/")
    (line,) = refusal(written(tmp_path, text))
    assert line.startswith(":6: teacher.class_weights: no loss uses the teacher's classifier (remove it, or add")
    inherits = text.replace("- name: pad", "- name: logit_kd")
    assert load_recipe(written(tmp_path, inherits)).teacher.class_weights == "head/"
    for choice in ("class_means", "none"):
        said = inherits.replace("head/", f"head/\n  classifier: {choice}")
        lines = refusal(written(tmp_path, said))
        assert f":6: teacher.class_weights: has no effect with classifier: {choice} (remove it, or write" in lines[0]


def test_a_teacher_without_classifier_cannot_give_class_weights(tmp_path):
    text = TAUGHT.replace("weights: t.pt", "weights: t.pt\n  classifier: none").replace("name: pad", "name: logit_kd")
    assert refusal(written(tmp_path, text))[0].startswith(":6: teacher.classifier: none, but logit_kd needs")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", ": the recipe is empty"),
        (b"# only a comment\n", ": the recipe is empty"),
        (b"- a\n", ":1: expected a mapping, got a list"),
        (b"hello", ":1: expected a mapping, got text 'hello'"),
        (b"a: \xff", ": byte 3 (0xFF) is not UTF-8"),
        ("name: a".encode("utf-16"), ": byte 0 (0xFF) is not UTF-8"),
        (b"a: [1,\nb: 2", ":1: [ is not closed"),
        (b"a: " + b"x" * 1_000_000, ": 1000003 bytes (a recipe has at most 1000000)"),
        (b"[" * 50_000, ":1: more than 50 levels of nesting"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, data, line):
    lines = refusal(written(tmp_path, data))
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    recipe = load_recipe(written(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()))
    assert recipe == load_recipe(written(tmp_path, GOOD))


def test_a_missing_file_names_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path("none.yaml"))
    assert caught.value.lines == [f"none.yaml: no such file (the working directory is {tmp_path})"]


def test_folders_and_pipes_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == [": not a regular file (give a .yaml file)"]
    assert refusal(tmp_path) == [": a folder (give a .yaml file)"]


def test_overrides_reach_sections_losses_by_name_and_items_by_index(tmp_path):
    overrides = ["losses.pad.weight=0.5", "losses.0.scale=1e1", "train.ema=0.9", "evaluate.sets=[{path: x.bin}]"]
    overrides += ["evaluate.sets.0.protocol=lfw", "data.augment.rotate=10", "student.options.width=2"]
    recipe = load_recipe(written(tmp_path, TAUGHT), overrides)
    assert (recipe.losses[1].weight, recipe.losses[0].scale, recipe.train.ema) == (0.5, 10.0, 0.9)
    assert (recipe.evaluate.sets[0].protocol, recipe.data.augment.rotate) == ("lfw", 10.0)
    assert recipe.student.options == {"width": 2}


def test_the_last_override_wins_and_null_empties(tmp_path):
    path = written(tmp_path, TAUGHT)
    assert load_recipe(path, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4
    assert load_recipe(path, ["teacher=null", "losses=[{name: margin_softmax}]"]).teacher is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.foo.bar=1", "--set train.foo.bar: train.foo: unknown key"),
        ("trian.epochs=1", "--set trian.epochs: trian: unknown key (did you mean train?)"),
        ("train.epoch=1", "--set train.epoch: unknown key (did you mean epochs?)"),
        ("losses.l2.weight=1", "--set losses.l2.weight: losses has no item 'l2' (known: margin_softmax, pad)"),
        ("losses.2.weight=1", "--set losses.2.weight: losses has 2 items (the first is 0)"),
        ("name.x=1", "--set name.x: name is a single value, not a section"),
        ("train.epochs", "--set train.epochs: not of the form key.path=value"),
        (".=1", "--set .: not of the form key.path=value"),
        ("train.epochs=", "--set train.epochs: expected a whole number, got null"),
        ("train.epochs=ten", "--set train.epochs: expected a whole number, got text 'ten'"),
        ("train.epochs=010", "--set train.epochs: 010 may mean 8 or 10"),
        ("train={epochs: 0}", "--set train: train.epochs: must be at least 1, got 0"),
        ("data.path=[", "--set data.path: not YAML"),
        ("data.path=&a x", "--set data.path: anchor &a"),
        ("losses.pad.floor=0", "--set losses.pad.floor: must be greater than 0, got 0"),
    ],
)
def test_an_override_that_is_wrong_is_named(tmp_path, override, line):
    assert refusal(written(tmp_path, TAUGHT), (override,))[0].startswith(line)


def test_values_left_open_are_refused_until_they_are_given(tmp_path):
    path = written(tmp_path, TAUGHT.replace("t.pt", "REQUIRED"))
    assert refusal(path) == [":5: teacher.weights: left open (give it with --set teacher.weights=...)"]
    assert required_keys(load_recipe(path, allow_required=True)) == ["teacher.weights"]
    given = load_recipe(path, ["teacher.weights=a.pt"])
    assert given.teacher is not None and given.teacher.weights == "a.pt"
    assert required_keys(given) == []


TRICKY = [
    "1e3",
    "010",
    "no",
    "null",
    "~x",
    "0x1f",
    "a: b",
    "x #y",
    " edge ",
    "",
    "é",
    "two\nlines",
    "'",
    "!t",
    "&a",
    "8",
]


@pytest.mark.parametrize("text", TRICKY)
def test_the_canonical_form_loads_back_equal(tmp_path, text):
    draft = {"name": "a", "description": text, "student": {"backbone": "b", "options": {"k": text, "n": 1, "f": 1e-9}}}
    draft |= {"data": {"source": "synthetic"}, "losses": [{"name": "margin_softmax", "margin": 1e-7}]}
    draft |= {"optimizer": {"learning_rate": 3e-5}, "train": {"epochs": 1}}
    recipe = Recipe.model_validate(draft)
    again = load_recipe(written(tmp_path, recipe_yaml(recipe)))
    assert again == recipe
    assert recipe_yaml(again) == recipe_yaml(recipe)
    assert recipe_digest(again) == recipe_digest(recipe)


def test_the_digest_sees_values_and_nothing_else(tmp_path):
    digest = recipe_digest(load_recipe(written(tmp_path, GOOD)))
    respelled = "# comment\n" + GOOD.replace("0.1", "1e-1").replace("epochs: 2", "epochs: 2\n  batch_size: 128")
    assert recipe_digest(load_recipe(written(tmp_path, respelled))) == digest
    assert recipe_digest(load_recipe(written(tmp_path, GOOD), ["train.seed=1"])) != digest


def test_a_number_names_a_normalisation(tmp_path):
    recipe = load_recipe(written(tmp_path, changed("backbone", "normalize: 128\n  backbone")))
    assert recipe.student.normalize == "128"


def test_recipes_are_frozen(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 3  # type: ignore[misc]


def test_the_json_schema_knows_the_losses_and_their_ranges():
    schema = Recipe.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Pad"]["properties"]["floor"]["exclusiveMinimum"] == 0
    assert set(schema["properties"]["losses"]["items"]["discriminator"]["mapping"]) >= {"pad", "margin_softmax"}


def test_superclasses_need_a_teacher_and_batches_of_identities(tmp_path):
    text = changed("epochs: 2", "epochs: 2\n  superclasses: 4")
    assert refusal(written(tmp_path, text)) == [
        ":12: train.superclasses: has no effect without images_per_identity (add images_per_identity: 4)"
    ]
    text = changed("epochs: 2", "epochs: 2\n  superclasses: 4\n  images_per_identity: 4")
    assert refusal(written(tmp_path, text)) == [
        ":12: train.superclasses: who looks alike is asked of a teacher, and there is none "
        "(write null, or add teacher: {weights: FILE})"
    ]


def test_partial_needs_weights_and_a_student_that_learns(tmp_path):
    (line,) = refusal(written(tmp_path, changed("backbone: mobile", "partial: true\n  backbone: mobile")))
    assert "student.partial: has no effect without weights (remove it, or add weights: FILE)" in line
