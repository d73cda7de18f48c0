"""Jobs, their states and events, the store that keeps them, and the runners that make them. Standard library only."""

from pusa_app.jobs.inline import InlineRunner
from pusa_app.jobs.job import Job, State, new_id
from pusa_app.jobs.log import EventLog
from pusa_app.jobs.runner import Runner
from pusa_app.jobs.store import JobStore
from pusa_app.jobs.supervisor import Supervisor

__all__ = ["EventLog", "InlineRunner", "Job", "JobStore", "Runner", "State", "Supervisor", "new_id"]
