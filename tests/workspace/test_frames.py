from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perry.workspace.frames import Frames
from tests.workspace.framed import framed

FrameList = list[tuple[int, bytes]]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.integers(1, 20))
def test_frames_come_out_whole_wherever_the_stream_is_cut(given_: FrameList, cut: int) -> None:
    stream = b"".join(framed(*frame) for frame in given_)
    frames = Frames()
    got: FrameList = []
    for start in range(0, len(stream), cut):
        got += frames.feed(stream[start : start + cut])
    assert got == given_
