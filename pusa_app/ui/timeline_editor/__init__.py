"""The timeline on the page: slots, their noise, their keyframes. Read-only so far."""

from pusa_app.ui.timeline_editor.view import TimelineView, picture_of, timeline_value

__all__ = ["TimelineView", "picture_of", "timeline_value"]
