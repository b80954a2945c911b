"""`SequenceStream`: a motion refined while it comes in, a few frames behind."""

from __future__ import annotations

from typing import Any

import numpy as np

from hand_models import HandModel, HandPose, load_hand_model

from ..config import RefineConfig
from ..evidence.inputs import as_hand_pose, is_pair
from ..evidence.motion_inputs import as_object_error
from ..evidence.stated import Stated
from .request import MotionRequest, MotionScene
from .sequence import SequenceResult, result_of


class SequenceStream:
    """Frames go in as they come; those that ``look_ahead`` more have followed come out, refined, and then stand.

    Each time, the frames of the last two seconds are solved for together (a fixed-lag smoother; Särkkä, Bayesian
    Filtering and Smoothing, 2013, ch. 8), going on from those that have been given out. The more frames a solve
    serves (``stride``), the less it costs.

        stream = SequenceStream("mug.obj", input_error="image", look_ahead=15)
        for hand, object_pose in frames:
            refined = stream.push(hand, object_pose)      # a SequenceResult of `stride` frames, or None
        rest = stream.finish()

    Args:
        object_mesh, fps, side, camera, input_error, object_error, scale, config, hand_model: as in `refine_sequence`.
        holding: True or False, of all frames; None to judge it.
        look_ahead: frames that the first of those given out at a time lies behind the newest.
        stride: frames given out at a time.
        context: frames before them that are solved for with them.

    Raises:
        ValueError: an argument is of the wrong kind.
    """

    def __init__(
        self,
        object_mesh: Any,
        *,
        fps: float = 30.0,
        side: str | None = None,
        camera: Any = None,
        input_error: Any = None,
        object_error: Any = None,
        holding: bool | None = None,
        look_ahead: int = 15,
        stride: int = 5,
        context: int = 60,
        scale: float | None = None,
        config: RefineConfig | None = None,
        hand_model: HandModel | None = None,
    ) -> None:
        if not 1 <= stride <= look_ahead or context < 2:
            raise ValueError(
                f"stride: got {stride}, with look_ahead={look_ahead} and context={context}; give 1 to look_ahead "
                "frames, and a context of 2 or more."
            )
        stated = Stated(input_error, camera, None, None, None, None, holding)
        self._model = hand_model or load_hand_model("open")
        self._scene = MotionScene(object_mesh, stated, as_object_error(object_error), fps, side, scale, self._model)
        self._config = config or RefineConfig()
        self._ahead, self._stride, self._context = look_ahead, stride, context
        self._hands: list[HandPose] = []
        self._objects: list[np.ndarray] = []
        self._settled: list[HandPose] = []

    def push(self, hand_pose: Any, object_pose: Any = None) -> SequenceResult | None:
        """Take a frame.

        Args:
            hand_pose: one hand, as in `refine_grasp`; NaN where it is missing.
            object_pose: ``(4, 4)`` object to the frame of the hands, or ``(P, 4, 4)`` for parts; None when both share a
                frame, in this and all other frames.

        Returns:
            The next ``stride`` frames, or None while they have to wait.

        Raises:
            ValueError: more than one hand is given, or object poses of some frames alone.
        """
        if is_pair(hand_pose):
            raise ValueError("hand_pose: got a pair; refine each hand in a SequenceStream of its own.")
        hand = as_hand_pose(hand_pose, self._model, self._scene.side)
        if len(hand) != 1:
            raise ValueError(f"hand_pose: got {len(hand)} hands; push one frame at a time.")
        if self._hands and (object_pose is None) != (not self._objects):
            raise ValueError("object_pose: given in some frames and not in others; give it in all, or in none.")
        self._hands.append(hand)
        if object_pose is not None:
            self._objects.append(np.asarray(object_pose, dtype=np.float32))
        waiting = len(self._hands) - len(self._settled)
        return self._solve(self._stride) if waiting > self._ahead else None

    def finish(self) -> SequenceResult | None:
        """The frames that are still waiting, or None where there are none; no frame may follow.

        Raises:
            ValueError: fewer frames came in than a motion has.
        """
        waiting = len(self._hands) - len(self._settled)
        return self._solve(waiting) if waiting else None

    def _solve(self, count: int) -> SequenceResult:
        """The next ``count`` frames; what is not needed for those that follow is forgotten."""
        settled = HandPose.cat(self._settled) if self._settled else None
        poses = np.stack(self._objects) if self._objects else None
        asked = MotionRequest.make(HandPose.cat(self._hands), poses, self._scene)
        first = len(self._settled)
        result = result_of(asked, asked.solve(self._config, settled))[first : first + count]
        self._settled += [result.pose[k] for k in range(count)]
        forget = max(0, len(self._settled) - self._context)
        self._hands, self._objects = self._hands[forget:], self._objects[forget:]
        self._settled = self._settled[forget:]
        return result
