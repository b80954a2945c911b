"""Rows of prediction files that hold 29 points instead of poses, as starts of refinement."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from contact.objects import ObjectMesh
from hand_models import HandModel
from pose_graph.graph import NODES

from ..files.object_files import ObjectEntry, load_object, no_mesh
from ..files.predictions import Predictions, groups, point_forms, pose_columns
from .graph_points import GraphStart, from_graph


def start_of_rows(predictions: Predictions, object_mesh: ObjectMesh, model: HandModel) -> GraphStart:
    """`from_graph` for rows that hold points, on one object, all of one of their `groups`. Raises ``ValueError``."""
    p = predictions
    flat = point_forms(p)[0] == "picture"
    stated = p.keypoint_confidence
    order = "" if p.corner_order is None else str(p.corner_order[0])
    return from_graph(
        p.column("keypoints_2d" if flat else "keypoints_3d"),
        object_mesh,
        cam_K=p.column("cam_K") if flat else None,
        confidence=stated if stated is not None and stated.shape[1] == NODES else None,
        side=str(p.side[0]),
        corner_order=order or None,
        hand_model=model,
    )


def with_starts(predictions: Predictions, objects: Mapping[str, ObjectEntry], model: HandModel) -> Predictions:
    """The rows that hold points with the poses of hand and object which these start refinement from.

    For formats that say poses only: how sure the poses are is lost.

    Raises:
        FileNotFoundError: there is no mesh for an object.
        ValueError: points that cannot be fitted.
    """
    forms = point_forms(predictions)
    filled = {name: value.copy() for name, value in predictions.columns().items()} | pose_columns(predictions)
    if "picture" in forms and predictions.keypoints_3d is None:
        filled["keypoints_3d"] = np.full((len(predictions), NODES, 3), np.nan)
    for object_id, parts in groups(predictions, np.flatnonzero(forms != "")).items():
        if object_id not in objects:
            raise FileNotFoundError(no_mesh(object_id, objects))
        for part in parts:
            p = predictions.take(part)
            start = start_of_rows(p, load_object(objects[object_id], str(p.side[0])), model)
            found = start.hand_pose.as_arrays() | {"object_pose": start.object_pose.numpy()}
            if "keypoints_3d" in filled:
                found["keypoints_3d"] = start.points[:, : filled["keypoints_3d"].shape[1]].numpy()
            for name, value in found.items():
                filled[name][part] = value
    filled["hand_model"] = np.where(forms == "", predictions.hand_model, model.name)
    return Predictions.from_columns(filled)
