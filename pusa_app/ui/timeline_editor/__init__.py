"""The timeline on the page: slots, their noise, their keyframes."""

from pusa_app.ui.timeline_editor.editor import TimelineEditor
from pusa_app.ui.timeline_editor.value import EditorValue, from_timeline, to_timeline
from pusa_app.ui.timeline_editor.view import TimelineView, picture_of, timeline_value

__all__ = [
    "EditorValue",
    "TimelineEditor",
    "TimelineView",
    "from_timeline",
    "picture_of",
    "timeline_value",
    "to_timeline",
]
