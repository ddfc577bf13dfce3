"""Using an exported file, without torch: embeddings of faces, how alike two are, and whether that is a match.

from facekd.runtime import load_model, read_face
model = load_model("student.onnx")
first, second = model.embed([read_face("a.jpg", model), read_face("b.jpg", model)])
model.is_match(first, second, fpr=1e-4)
"""

from facekd.runtime.faces import face_finder, read_face
from facekd.runtime.model import FaceModel, load_model, similarity

__all__ = ["FaceModel", "face_finder", "load_model", "read_face", "similarity"]
