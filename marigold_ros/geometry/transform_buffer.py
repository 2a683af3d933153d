"""Buffer the transforms between coordinate frames, and look them up by the rules of tf2."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import check_transform, Matrix, Pose, pose_matrix, without_slash

# As in tf2, moving transforms that are older than this, relative to the newest one of the same
# frame, are discarded.
HISTORY_NS = 10 * 10 ** 9
# The transforms of odometry are seldom farther apart, and no robot changes its speed much in it.
MAX_EXTRAPOLATION_NS = 50_000_000


class TransformBuffer:
    """
    Tree of coordinate frames, whose transforms are looked up by the rules of tf2's BufferCore.

    A static transform holds at any time.  A moving one is interpolated between its two nearest
    stamps, and extrapolated only by `lookup_moving`.  A frame may change its parent, and
    between static and moving.  Time 0 asks for the newest time at which all transforms are known.

    Parameters
    ----------
    history_ns : int
        Moving transforms are kept for so long, ns.
    max_gap_ns : int or None
        Moving transforms that are farther apart are not interpolated, ns; None: all are, as in
        tf2.

    Examples
    --------
    A camera that is mounted 0.2 m ahead of a robot, which drives 1 m in 1 s:

    >>> buffer, level = TransformBuffer(), (0.0, 0.0, 0.0, 1.0)
    >>> buffer.set_static('base', 'camera', ((0.2, 0.0, 0.0), level))
    >>> for stamp_ns, x in ((10 ** 9, 0.0), (2 * 10 ** 9, 1.0)):
    ...     buffer.set_moving('odom', 'base', stamp_ns, ((x, 0.0, 0.0), level))
    >>> float(buffer.lookup('odom', 'camera', 1_500_000_000)[0, 3])
    0.7
    """

    def __init__(self, history_ns: int = HISTORY_NS, max_gap_ns: int | None = None) -> None:
        """Start without frames."""
        self._history_ns, self._max_gap_ns = history_ns, max_gap_ns
        self._links: dict[str, _StaticLink | _MovingLink] = {}  # by the child frame
        self._frames: set[str] = set()

    def set_static(self, parent: str, child: str, pose: Pose) -> None:
        """
        Add a static transform; it replaces every earlier one of the child.

        Parameters
        ----------
        parent, child : str
            Names of the coordinate frames.
        pose : Pose
            Of the child in the parent.

        Raises
        ------
        InputError
            If tf2 would ignore it, see `check_transform`.
        """
        parent, child = without_slash(parent), without_slash(child)
        check_transform(parent, child, *pose)
        self._links[child] = _StaticLink(parent, pose_matrix(*pose))
        self._frames.update((parent, child))

    def set_moving(self, parent: str, child: str, stamp_ns: int, pose: Pose) -> None:
        """
        Add a moving transform at a time, ns.

        Raises
        ------
        InputError
            As `set_static`, and if the transform is older than the history.
        """
        parent, child = without_slash(parent), without_slash(child)
        check_transform(parent, child, *pose)
        link = self._links.get(child)
        if not isinstance(link, _MovingLink):
            link = self._links[child] = _MovingLink(self._history_ns)
        link.add(parent, stamp_ns, pose)
        self._frames.update((parent, child))

    def clear_moving(self) -> None:
        """Discard the moving transforms, as tf2 does when the time jumps back."""
        for link in self._links.values():
            if isinstance(link, _MovingLink):
                link.clear()

    def lookup(self, target: str, source: str, time_ns: int) -> Matrix:
        """
        Look up the pose of the source frame in the target frame.

        Returns
        -------
        float64 [4, 4]
            Transforms points from the source to the target frame.

        Raises
        ------
        InputError
            If the frames are unknown or not connected at that time.
        """
        target, source = without_slash(target), without_slash(source)
        if time_ns == 0:
            time_ns = self._newest_common_ns(target, source) or 0
        return self._lookup(target, source, time_ns, 0)

    def _lookup(self, target: str, source: str, time_ns: int, max_extrapolation_ns: int) -> Matrix:
        if target == source:
            return np.eye(4)
        self._check_frames(target, source)
        from_source, problem = self.ancestors(source, time_ns, max_extrapolation_ns)
        if target in from_source:
            return from_source[target]
        from_target, target_problem = self.ancestors(target, time_ns, max_extrapolation_ns)
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is None:
            raise InputError(problem or target_problem
                             or f'{source!r} and {target!r} are not connected')
        return np.asarray(np.linalg.inv(from_target[common]) @ from_source[common], np.float64)

    def lookup_newest(self, target: str, source: str, time_ns: int) -> tuple[Matrix, int]:
        """
        Look up a pose at a time or, where it is not known yet, at the newest time before.

        Returns
        -------
        matrix : float64 [4, 4]
            See `lookup`.
        time_ns : int
            The time of the pose, ns.

        Raises
        ------
        InputError
            See `lookup`.
        """
        try:
            return self.lookup(target, source, time_ns), time_ns
        except InputError:
            target, source = without_slash(target), without_slash(source)
            newest_ns = self._newest_common_ns(target, source)
            if newest_ns is None or newest_ns >= time_ns:
                raise
            return self.lookup(target, source, newest_ns), newest_ns

    def lookup_moving(self, target: str, source: str, time_ns: int,
                      max_extrapolation_ns: int = MAX_EXTRAPOLATION_NS) -> Matrix:
        """
        Look up the pose of a frame that moves, also shortly after the newest transforms.

        A transform of an image's stamp often arrives after the image.  A moving transform goes on
        as it moved in the time before its newest stamp that is as long as the time after it: with
        a constant velocity, and whatever the rate, errors of the poses are not magnified as they
        would be from two transforms that are only 1 ms apart.

        Parameters
        ----------
        target, source : str
        time_ns : int
            Above 0.
        max_extrapolation_ns : int
            Longest time after the newest transform, ns.

        Returns
        -------
        float64 [4, 4]
            See `lookup`.

        Raises
        ------
        InputError
            See `lookup`, and if no transform between the frames moves.
        """
        target, source = without_slash(target), without_slash(source)
        pose = self._lookup(target, source, time_ns, max_extrapolation_ns)
        if self._newest_common_ns(target, source) is None:
            raise InputError(f'no transform between {target!r} and {source!r} moves')
        return pose

    def ancestors(self, frame: str, time_ns: int,
                  max_extrapolation_ns: int = 0) -> tuple[dict[str, Matrix], str]:
        """
        Return the pose of a frame in each of its ancestors at a time, ns.

        Parameters
        ----------
        frame : str
        time_ns, max_extrapolation_ns : int
            See `lookup_moving`.

        Returns
        -------
        poses : dict of str to float64 [4, 4]
            By ancestor, from the frame itself upwards.
        problem : str
            Why the next ancestor is not reached; empty if the last one is the root.
        """
        poses: dict[str, Matrix] = {frame: np.eye(4)}
        while (link := self._links.get(frame)) is not None:
            try:
                parent, parent_from_frame = link.at(time_ns, self._max_gap_ns,
                                                    max_extrapolation_ns)
            except InputError as err:
                return poses, f'the transform of {frame!r} is unknown: {err}'
            if parent in poses:
                return poses, f'the frames above {frame!r} form a loop'
            poses[parent] = parent_from_frame @ poses[frame]
            frame = parent
        return poses, ''

    def moving_parent(self, frame: str) -> str | None:
        """Return the newest parent of a frame whose transform moves, else None."""
        link = self._links.get(frame)
        newest = link.newest() if isinstance(link, _MovingLink) else None
        return None if newest is None else newest[0]

    def _check_frames(self, *frames: str) -> None:
        for frame in frames:
            if not self._frames:
                raise InputError('there are no transforms on /tf and /tf_static')
            if frame not in self._frames:
                raise InputError(f'{frame!r} is not a coordinate frame of TF')

    def _newest_common_ns(self, target: str, source: str) -> int | None:
        """
        Return the newest time at which all transforms between two frames are known, ns.

        None if they are all static, or the frames are not connected.
        """
        above_source, above_target = self._newest_chain(source), self._newest_chain(target)
        if not above_source.keys() & above_target.keys():
            return None
        between = above_source.items() ^ above_target.items()
        return min((stamp_ns for _, stamp_ns in between if stamp_ns is not None), default=None)

    def _newest_chain(self, frame: str) -> dict[str, int | None]:
        """Return a frame and its newest ancestors with the newest stamp of each; None: static."""
        chain: dict[str, int | None] = {}
        while frame not in chain:
            link = self._links.get(frame)
            newest = None if link is None else link.newest()
            chain[frame] = None if newest is None else newest[1]
            if newest is None:
                break
            frame = newest[0]
        return chain


@dataclass(frozen=True)
class _StaticLink:
    """Transform from a frame to its parent that never changes."""

    parent: str
    parent_from_frame: Matrix

    def at(self, time_ns: int, max_gap_ns: int | None, max_extrapolation_ns: int = 0
           ) -> tuple[str, Matrix]:
        """Return the parent and the pose in it."""
        return self.parent, self.parent_from_frame

    def newest(self) -> tuple[str, int | None] | None:
        """Return the parent; it has no stamp."""
        return self.parent, None


class _MovingLink:
    """Transforms from a frame to its parents over time, in the order of their stamps."""

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        # In arrays, because a fast robot sends 100 000 transforms within the history.
        self._stamps_ns, self._numbers = array('q'), array('d')  # [n], [n * 7]
        self._parents: list[str] = []

    def add(self, parent: str, stamp_ns: int, pose: Pose) -> None:
        """Add a transform; of several with one stamp the last counts."""
        stamps, numbers = self._stamps_ns, (*pose[0], *pose[1])
        if not stamps or stamp_ns > stamps[-1]:
            stamps.append(stamp_ns)
            self._parents.append(parent)
            self._numbers.extend(numbers)
            # Not at every call, because this moves all elements.
            if stamps[0] < stamp_ns - 1.1 * self._history_ns:
                self._discard(bisect_left(stamps, stamp_ns - self._history_ns))
            return
        if stamp_ns < stamps[-1] - self._history_ns:
            raise InputError(f'its stamp {stamp_ns} ns is {(stamps[-1] - stamp_ns) * 1e-9:.1f} s '
                             'older than that of an earlier one')
        index = bisect_left(stamps, stamp_ns)
        end = index + (stamps[index] == stamp_ns)
        stamps[index:end] = array('q', (stamp_ns,))
        self._parents[index:end] = [parent]
        self._numbers[7 * index:7 * end] = array('d', numbers)

    def clear(self) -> None:
        """Discard all transforms."""
        self._discard(len(self._parents))

    def newest(self) -> tuple[str, int | None] | None:
        """Return the newest parent and its stamp, ns; None if there is no transform."""
        return (self._parents[-1], self._stamps_ns[-1]) if self._parents else None

    def at(self, time_ns: int, max_gap_ns: int | None, max_extrapolation_ns: int = 0
           ) -> tuple[str, Matrix]:
        """
        Return the parent at a time, ns, and the pose in it.

        Between transforms with different parents, the earlier one holds.

        Raises
        ------
        InputError
            If the time is outside that of the transforms by more than `max_extrapolation_ns`, or
            in a gap longer than `max_gap_ns`.
        """
        stamps = self._stamps_ns
        if not stamps:
            raise InputError('none has been received since the time jumped back')
        after_ns = time_ns - stamps[-1]
        if 0 < after_ns <= max_extrapolation_ns and stamps[-1] - after_ns >= stamps[0]:
            parent, before = self.at(stamps[-1] - after_ns, max_gap_ns)
            _, newest = self.at(stamps[-1], max_gap_ns)
            if parent == self._parents[-1]:
                return parent, newest @ np.linalg.inv(before) @ newest
        later = bisect_right(stamps, time_ns)
        if later == 0 or (later == len(stamps) and stamps[-1] != time_ns):
            raise InputError(_describe_extrapolation(time_ns, stamps[-1 if later else 0]))
        earlier = later - 1
        if stamps[earlier] == time_ns or self._parents[earlier] != self._parents[later]:
            return self._parents[earlier], self._matrix(earlier)
        gap_ns = stamps[later] - stamps[earlier]
        if max_gap_ns is not None and gap_ns > max_gap_ns:
            raise InputError(f'the time {time_ns} ns lies in a gap of {gap_ns * 1e-9:.1f} s')
        # Linearly, and by slerp.
        fraction = (time_ns - stamps[earlier]) / gap_ns
        start, end = (np.array(self._numbers[7 * i:7 * i + 7]) for i in (earlier, later))
        rotations = Slerp([0.0, 1.0], Rotation.from_quat([start[3:], end[3:]]))
        return self._parents[earlier], pose_matrix(
            ((1 - fraction) * start[:3] + fraction * end[:3]).tolist(),
            rotations(fraction).as_quat().tolist())

    def _matrix(self, index: int) -> Matrix:
        numbers = self._numbers[7 * index:7 * index + 7]
        return pose_matrix(numbers[:3], numbers[3:])

    def _discard(self, count: int) -> None:
        """Discard the oldest transforms."""
        del self._stamps_ns[:count], self._parents[:count], self._numbers[:7 * count]


def _describe_extrapolation(time_ns: int, stamp_ns: int) -> str:
    """Say that a time is outside the transforms, the nearest of which has a stamp."""
    direction, end = ('future', 'newest') if time_ns > stamp_ns else ('past', 'oldest')
    return (f'the time {time_ns} ns would need extrapolation into the {direction}, '
            f'{abs(time_ns - stamp_ns) * 1e-9:.3f} s from the {end} at {stamp_ns} ns')
