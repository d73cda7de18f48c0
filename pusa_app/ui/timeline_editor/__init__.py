"""The timeline on the page: slots, their noise, their keyframes."""

from pusa_app.ui.timeline_editor.editor import TimelineEditor
from pusa_app.ui.timeline_editor.value import EditorValue, from_timeline, to_timeline

__all__ = ["EditorValue", "TimelineEditor", "from_timeline", "to_timeline"]
