"""Synthesises sound scenes and captions for them from seeds."""

from xacle_stack.synth.events import EVENTS, synthesise
from xacle_stack.synth.scenes import Scene, draw_scene, draw_story, random_stream, render_scene
from xacle_stack.synth.sources import SAMPLE_RATE_HZ
from xacle_stack.synth.wording import Half, Story, caption_half, write_caption

__all__ = [
    "EVENTS",
    "SAMPLE_RATE_HZ",
    "Half",
    "Scene",
    "Story",
    "caption_half",
    "draw_scene",
    "draw_story",
    "random_stream",
    "render_scene",
    "synthesise",
    "write_caption",
]
