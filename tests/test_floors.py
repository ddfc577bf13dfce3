"""Who may import whom, and the calls nobody may make; read off the syntax tree, nothing is run but one import check.

Floors: 0 the modules beside ``facekd/__init__.py`` (errors, registry, ...); 1 recipe; 2 losses, metrics;
3 models, data; 4 engine, runtime; 5 the command line. Imports go down, never up, never across to the neighbour.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest
from house import ROOT, modules

FLOORS = {"recipe": 1, "losses": 2, "metrics": 2, "models": 3, "data": 3, "engine": 4, "runtime": 4}
TOP = 5

FORBIDDEN_NAMES = {
    "pickle.load": "runs code from a file; write a reader",
    "pickle.loads": "runs code from a file; write a reader",
    "pickle.Unpickler": "runs code from a file; write a reader",
    "pickle._Unpickler": "runs code from a file; write a reader",
    "joblib.load": "is a pickle",
    "pandas.read_pickle": "is a pickle",
    "torch.jit.load": "loads a program; read tensors",
    "torch.package": "holds modules; read tensors",
    "torch.hub.load": "runs code of a repository; read tensors",
    "torch.serialization": "is torch.load by another name; call that with weights_only=True",
    "torch.ops.load_library": "loads machine code",
    "yaml.load": "resolves far more than a recipe holds; compose nodes, or use a safe loader",
    "yaml.load_all": "resolves far more than a recipe holds; compose nodes, or use a safe loader",
    "yaml.unsafe_load": "builds any Python object",
    "yaml.full_load": "builds Python objects",
    "yaml.Loader": "builds any Python object",
    "yaml.UnsafeLoader": "builds any Python object",
    "yaml.FullLoader": "builds Python objects",
    "marshal.load": "reads code objects",
    "marshal.loads": "reads code objects",
    "shelve.open": "is a pickle",
    "runpy": "runs a file as code",
    "importlib.util.spec_from_file_location": "runs a file as code",
    "importlib.machinery": "runs a file as code",
    "shutil.unpack_archive": "writes where the archive says; read members in place",
    "numpy.fromfile": "takes what a header claims; read bytes, then check sizes",
    "cv2.imread": "fails silently and takes no odd paths; read bytes, then cv2.imdecode",
    "os.system": "starts a shell; use subprocess.run with a list",
    "os.popen": "starts a shell; use subprocess.run with a list",
    "subprocess.getoutput": "starts a shell; use subprocess.run with a list",
    "subprocess.getstatusoutput": "starts a shell; use subprocess.run with a list",
    "os.exec*": "becomes another program; use subprocess.run with a list",
    "os.spawn*": "starts a program past subprocess; use subprocess.run with a list",
    "os.posix_spawn*": "starts a program past subprocess; use subprocess.run with a list",
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "__import__": "imports by a name that may come from a file; write an import",
    "importlib.import_module": "imports by a name that may come from a file; write an import",
}
"""Dotted name -> why not; what lies below it is meant too, and ``*`` stands for any end of a name."""
ALLOWED_USES = {("facekd_cli.main", "importlib.import_module")}
"""The table of commands imports its own modules."""
SAME_MODULE = {"cPickle": "pickle", "_pickle": "pickle", "dill": "pickle", "cloudpickle": "pickle"}


def floor_of(module: str) -> tuple[int, str]:
    """Floor and unit of a facekd module; modules of one unit may import each other."""
    parts = module.split(".")
    if parts[0] == "facekd_cli":
        return TOP, "cli"
    unit = parts[1] if len(parts) > 1 else ""
    return (FLOORS[unit], unit) if unit in FLOORS else (0, "the ground floor")


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module an import-from names, relative ones resolved."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Line, imported module and whether it happens at import time of every import."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                source = absolute(child, module, is_package)
                yield from ((child.lineno, f"{source}.{alias.name}", at_top) for alias in child.names)
            elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), False)
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), at_top)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_top and not inside)

    return walk(tree, True)


def import_problem(module: str, imported: str, at_top: bool) -> str | None:
    """What is wrong with one import, or nothing."""
    package = imported.split(".")[0]
    floor, unit = floor_of(module)
    if package in {"facekd", "facekd_cli"}:
        other_floor, other_unit = floor_of(imported)
        if other_floor > floor:
            return f"{unit} (floor {floor}) imports {imported} of floor {other_floor}: import downwards only"
        if other_floor == floor and other_unit != unit:
            return f"{unit} imports {imported} beside it on floor {floor}: move what both need one floor down"
    if package in {"click", "rich"} and floor != TOP:
        return f"{package} is for cli/ only"
    if package == "cv2" and unit != "data":
        return "cv2 is for facekd/data/ only"
    if package == "timm" and (module != "facekd.models.backbone" or at_top):
        return "timm is for facekd/models/backbone.py only, inside a function: it takes seconds to import"
    if package in {"onnx", "onnxruntime", "onnxscript"}:
        if not module.startswith(("facekd.models.onnx_", "facekd.engine.export.")):
            return f"{package} is for facekd/engine/export/ and facekd/models/onnx_*.py only"
        if at_top:
            return f"{package} is imported inside functions only"
    if package == "torch" and unit == "runtime":
        return "torch is not for facekd/runtime/: it runs where there is none"
    if package in {"matplotlib", "jinja2"} and at_top:
        return f"{package} is imported inside functions only: only who asks for a picture or a page waits for it"
    if package == "torch" and at_top and (floor in {0, 1} or unit == "cli"):
        return "torch is imported inside functions here, so that help and recipe checks answer at once"
    return None


def why_forbidden(name: str) -> str | None:
    """A dotted name with the reason not to use it, or nothing."""
    name = name.removeprefix("builtins.")
    for key, reason in FORBIDDEN_NAMES.items():
        if name == key or (key.endswith("*") and name.startswith(key[:-1])):
            return f"{name} {reason}"
        if name.startswith(f"{key}."):
            return f"{key} {reason}"
    return None


def name_of(node: ast.AST, aliases: dict[str, str]) -> str:
    """Dotted name of an expression with import aliases undone; empty for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = name_of(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return ""


def import_aliases(tree: ast.Module) -> dict[str, str]:
    """Local name -> full dotted name, for every import of the file."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                original = SAME_MODULE.get(alias.name, alias.name)
                aliases[alias.asname or alias.name.split(".")[0]] = original if alias.asname else original.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            source = SAME_MODULE.get(node.module, node.module)
            aliases.update({alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names})
    return aliases


def call_problem(node: ast.Call, aliases: dict[str, str]) -> str | None:
    """What is wrong with the arguments of one call, or nothing."""
    name = name_of(node.func, aliases)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load needs weights_only=True: a checkpoint is data"
    if name.startswith("subprocess.") and keywords.get("shell", "False") != "False":
        return f"{name} with a shell: pass a list of arguments"
    open_ended = len(node.args) > 2 or None in keywords
    if name == "numpy.load" and (open_ended or keywords.get("allow_pickle", "False") != "False"):
        return "numpy.load with allow_pickle: an array file is data"
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method in {"extractall", "extract"}:
        return f"{method} writes where the archive says; read members in place"
    return None


def import_by_name_problems(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Forbidden names that an import brings in and nothing here uses: another module may."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.ImportFrom) and node.level):
            continue
        source = f"{SAME_MODULE.get(node.module or '', node.module)}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            held = [key for key in FORBIDDEN_NAMES if key.startswith(source)] if alias.name == "*" and source else []
            if held:
                yield node.lineno, f"{source}* brings in {held[0]}, which {FORBIDDEN_NAMES[held[0]]}"
            elif (problem := why_forbidden(f"{source}{alias.name}")) and (alias.asname or alias.name) not in used:
                yield node.lineno, problem


def use_problems(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Line and message of every forbidden name, call and statement."""
    aliases = import_aliases(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    yield from import_by_name_problems(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert in library code vanishes under python -O: raise an error with a fix"
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = name_of(node, aliases)
            if name == "torch.load" and id(node) not in called:
                yield node.lineno, "torch.load is called where it is named, with weights_only=True"
            if (module, name) not in ALLOWED_USES and (problem := why_forbidden(name)):
                yield node.lineno, problem
        if isinstance(node, ast.Call) and (problem := call_problem(node, aliases)):
            yield node.lineno, problem


def problems(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Every breach of the house rules in one module, as ``line: what``."""
    tree = ast.parse(source)
    found = list(use_problems(tree, module))
    for line, imported, at_top in imports(tree, module, is_package):
        if problem := import_problem(module, imported, at_top):
            found.append((line, problem))
    return [f"{line}: {message}" for line, message in sorted(set(found))]


def test_every_module_keeps_the_rules() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{problem}"
        for module, path in modules()
        for problem in problems(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_package_has_a_floor() -> None:
    folders = {path.parent.name for path in (ROOT / "facekd").glob("*/__init__.py")}
    assert folders == set(FLOORS), "give the new package a floor in this file"


BREACHES = [
    ("facekd.errors", "from facekd.recipe import load_recipe", "floor 0"),
    ("facekd.recipe.schema", "from facekd.losses import LOSSES", "import downwards only"),
    ("facekd.losses.feature", "from facekd.metrics.roc import auc", "beside it on floor 2"),
    ("facekd.losses.feature", "from ..metrics import roc", "beside it on floor 2"),
    ("facekd.losses.feature", "from .. import metrics", "beside it on floor 2"),
    ("facekd.losses.feature", "from facekd import metrics", "beside it on floor 2"),
    ("facekd.losses.feature", "import facekd.engine.training.trainer", "import downwards only"),
    ("facekd.losses.feature", "def f():\n    import facekd.engine.training.trainer", "2: losses (floor 2)"),
    ("facekd.losses.feature", "if TYPE_CHECKING:\n    from facekd.engine import plan", "import downwards only"),
    ("facekd.losses.feature", "if a:\n    pass\nelif TYPE_CHECKING:\n    from facekd.data import images", "downwards"),
    ("facekd.models.heads", "from facekd.data.images import decode", "beside it on floor 3"),
    ("facekd.data.images", "from facekd.models.heads import Projector", "beside it on floor 3"),
    ("facekd.engine.training.trainer", "from facekd_cli.common import console", "floor 5"),
    ("facekd.engine.training.trainer", "import rich.progress", "rich is for cli/ only"),
    ("facekd.engine.training.trainer", "def f():\n    from click import echo", "click is for cli/ only"),
    ("facekd.engine.training.trainer", "def f():\n    import cv2", "cv2 is for facekd/data/ only"),
    ("facekd_cli.data", "import cv2", "cv2 is for facekd/data/ only"),
    ("facekd.models.backbone", "import timm", "timm is for facekd/models/backbone.py only"),
    ("facekd.models.heads", "def f():\n    import timm", "timm is for facekd/models/backbone.py only"),
    ("facekd.engine.export.exporter", "import onnx", "onnx is imported inside functions only"),
    ("facekd.models.onnx_model", "from onnxruntime import InferenceSession", "inside functions only"),
    ("facekd.models.onnx_file", "import onnx", "inside functions only"),
    ("facekd.models.embedder", "def f():\n    import onnx", "onnx is for facekd/engine/export/ and"),
    (
        "facekd.engine.evaluation.evaluator",
        "def f():\n    import onnxscript",
        "onnxscript is for facekd/engine/export/",
    ),
    (
        "facekd.engine.evaluation.plots",
        "from matplotlib.figure import Figure",
        "matplotlib is imported inside functions only",
    ),
    ("facekd.engine.evaluation.report", "import jinja2", "jinja2 is imported inside functions only"),
    ("facekd.runtime.model", "def f():\n    import torch", "torch is not for facekd/runtime/"),
    ("facekd.runtime.model", "from facekd.engine import embed", "beside it on floor 4"),
    ("facekd_cli.train", "import torch", "torch is imported inside functions here"),
    ("facekd_cli.train", "try:\n    from torch import nn\nexcept ImportError:\n    pass", "torch is imported inside"),
    ("facekd_cli.train", "class A:\n    import torch.nn", "torch is imported inside"),
    ("facekd.recipe.schema", "import torch", "torch is imported inside"),
    ("facekd.errors", "import torch", "torch is imported inside"),
    ("facekd.registry", "import torch", "torch is imported inside"),
    ("facekd", "import torch", "torch is imported inside"),
    ("facekd.data.bin_format", "import pickle\npickle.load(stream)", "2: pickle.load"),
    ("facekd.data.bin_format", "from pickle import loads as read\nread(data)", "2: pickle.loads"),
    ("facekd.data.bin_format", "import cPickle as p\np.loads(data)", "2: pickle.loads"),
    ("facekd.data.bin_format", "import pickle\nreader = pickle.Unpickler", "2: pickle.Unpickler"),
    ("facekd.models.weights", "import torch\ntorch.load(path)", "2: torch.load needs weights_only=True"),
    ("facekd.models.weights", "import torch\ntorch.load(path, weights_only=False)", "torch.load needs"),
    ("facekd.models.weights", "from torch import load\nload(path, 'cpu', weights_only=safe)", "torch.load needs"),
    ("facekd.recipe.loading", "import yaml\nyaml.load(text, Loader=Strict)", "2: yaml.load"),
    ("facekd.recipe.loading", "import yaml as y\ny.unsafe_load(text)", "2: yaml.unsafe_load"),
    ("facekd.recipe.loading", "eval(text)", "1: eval runs text as code"),
    ("facekd.recipe.loading", "def f():\n    exec(text, {})", "2: exec runs text as code"),
    (
        "facekd.engine.run_folder",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "2: subprocess.run with a shell",
    ),
    ("facekd.engine.run_folder", "from subprocess import Popen\nPopen(c, shell=wish)", "subprocess.Popen with a shell"),
    ("facekd.engine.run_folder", "import os\nos.system('ls')", "2: os.system"),
    ("facekd.data.images", "import cv2\ncv2.imread(name)", "2: cv2.imread"),
    ("facekd.data.images", "from cv2 import imread\nimread(name)", "2: cv2.imread"),
    ("facekd.data.images", "import numpy as np\nnp.load(name, allow_pickle=True)", "2: numpy.load with allow_pickle"),
    ("facekd.data.tar_source", "import tarfile\ntarfile.open(name).extractall(folder)", "2: extractall writes where"),
    ("facekd.data.tar_source", "archive.extract(member=one, path=folder)", "1: extract writes where"),
    ("facekd.data.tar_source", "import shutil\nshutil.unpack_archive(name)", "2: shutil.unpack_archive"),
    ("facekd.models.torch_file", "import marshal\nmarshal.loads(data)", "2: marshal.loads"),
    ("facekd.models.torch_file", "from runpy import run_path\nrun_path(name)", "2: runpy runs a file as code"),
    ("facekd.losses.feature", "assert x.dim() == 2", "1: assert in library code"),
    ("facekd.models.torch_file", "from pickle import load", "1: pickle.load runs code"),
    ("facekd.models.torch_file", "from _pickle import Unpickler as U\nclass Mine(U): pass", "2: pickle.Unpickler"),
    ("facekd.models.torch_file", "from pickle import *", "1: pickle.* brings in pickle.load"),
    ("facekd.models.torch_file", "import joblib\njoblib.load(path)", "2: joblib.load is a pickle"),
    ("facekd.models.torch_file", "from joblib import load\nload(path)", "2: joblib.load is a pickle"),
    ("facekd.models.torch_file", "import torch\ntorch.jit.load(path)", "2: torch.jit.load loads a program"),
    ("facekd.models.torch_file", "import torch as t\nread = t.jit.load", "2: torch.jit.load loads a program"),
    ("facekd.models.torch_file", "from torch import jit\njit.load(path)", "2: torch.jit.load loads a program"),
    ("facekd.models.torch_file", "import torch\ntorch.serialization.load(path)", "2: torch.serialization is"),
    ("facekd.models.torch_file", "from torch.serialization import load\nload(path)", "2: torch.serialization is"),
    ("facekd.models.torch_file", "import torch.package", "1: torch.package holds modules"),
    ("facekd.models.torch_file", "from torch.package import PackageImporter as P\nP(path)", "2: torch.package holds"),
    ("facekd.models.torch_file", "import torch\nread = torch.load", "2: torch.load is called where it is named"),
    ("facekd.models.torch_file", "import torch\ntorch.load(path, **options)", "2: torch.load needs weights_only=True"),
    ("facekd.models.backbone", "import importlib\nimportlib.import_module(name)", "2: importlib.import_module imports"),
    ("facekd.models.backbone", "from importlib import import_module as i\ni(name)", "2: importlib.import_module"),
    ("facekd.models.backbone", "__import__(name)", "1: __import__ imports by a name"),
    ("facekd.models.backbone", "import builtins\nbuiltins.__import__(name)", "2: __import__ imports by a name"),
    ("facekd.models.backbone", "from importlib.util import spec_from_file_location as s\ns(a, b)", "2: importlib.util"),
    ("facekd.recipe.loading", "compile(text, 'a', 'exec')", "1: compile makes code of text"),
    ("facekd.recipe.loading", "import builtins as b\nb.eval(text)", "2: eval runs text as code"),
    ("facekd.recipe.loading", "run = exec", "1: exec runs text as code"),
    ("facekd.recipe.loading", "import yaml\nyaml.compose(text, Loader=yaml.UnsafeLoader)", "2: yaml.UnsafeLoader"),
    ("facekd.data.images", "import numpy as np\nnp.load(name, None, True)", "2: numpy.load with allow_pickle"),
    ("facekd.data.images", "from numpy import load\nload(name, **options)", "2: numpy.load with allow_pickle"),
    ("facekd.data.tar_source", "archive.extract(member, folder)", "1: extract writes where"),
    ("facekd.data.tar_source", "from shutil import unpack_archive", "1: shutil.unpack_archive writes where"),
    ("facekd.engine.run_folder", "import os\nos.execvp('ls', [])", "2: os.execvp becomes another program"),
    ("facekd.engine.run_folder", "from os import posix_spawnp as p\np('ls', [], {})", "2: os.posix_spawnp starts"),
    ("facekd.engine.run_folder", "from runpy import run_module", "1: runpy runs a file"),
]


@pytest.mark.parametrize(("module", "source", "message"), BREACHES, ids=lambda value: value[:40])
def test_a_breach_is_found(module: str, source: str, message: str) -> None:
    found = problems(module, source)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_breach_in_a_package_is_found() -> None:
    assert problems("facekd.losses", "from ..metrics import roc", is_package=True)
    assert problems("facekd.losses", "from .metrics import roc", is_package=True) == []


ALLOWED = [
    ("facekd.registry", "from facekd.errors import UsageError"),
    ("facekd.losses", "from facekd.losses.feature import l2\nfrom facekd import __version__"),
    ("facekd.losses.feature", "import torch\nfrom .common import widen\nfrom facekd.recipe import schema"),
    ("facekd.data.images", "import cv2\ncv2.imdecode(data, 1)"),
    ("facekd.models.backbone", "def f():\n    import timm"),
    ("facekd.engine.export.exporter", "def f():\n    import onnx, onnxruntime, onnxscript"),
    ("facekd.engine.export.graph", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx"),
    (
        "facekd_cli.train",
        "import click, rich\nfrom . import common\ndef f():\n    import torch\n    import facekd.engine",
    ),
    ("facekd.models.weights", "import torch\ntorch.load(path, map_location='cpu', weights_only=True)\nmodel.eval()"),
    ("facekd.engine.run_folder", "import subprocess\nsubprocess.run(['git'], shell=False)"),
    ("facekd.data.bin_format", "import pickle\npickle.dumps(x)\nimport pickletools\nimport json\njson.load(stream)"),
    ("facekd.recipe.loading", "import yaml\nyaml.safe_load(text)\nyaml.compose(text, Loader=yaml.SafeLoader)"),
    ("facekd.models.torch_file", "from torch import load\nload(stream, weights_only=True)"),
    ("facekd.models.torch_file", "import torch\ntorch.jit.trace(net, x)\ntorch.compile(net)\nsettings.compile = 1"),
    ("facekd.data.images", "import re, json, numpy\nre.compile(a)\njson.load(b)\nnumpy.load(c, allow_pickle=False)"),
    ("facekd_cli.main", "import importlib\nimportlib.import_module('.train', __package__)"),
]


@pytest.mark.parametrize(("module", "source"), ALLOWED, ids=lambda value: value[:40])
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert problems(module, source) == []


def test_command_modules_and_recipes_import_without_heavy_libraries() -> None:
    light = [name for name, _ in modules() if floor_of(name)[0] in {0, 1, TOP} and not name.endswith("__main__")]
    script = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'cv2', 'sklearn', 'matplotlib', 'jinja2'}\n"
        "    heavy &= set(sys.modules)\n"
        "    if heavy:\n"
        "        sys.exit(f'importing {name} imports {sorted(heavy)}')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
