"""Jobs, their states and events, and the supervisor of the worker process. Standard library only."""

from pusa_app.jobs.job import Job, State, new_id
from pusa_app.jobs.log import EventLog
from pusa_app.jobs.store import JobStore, MemoryStore
from pusa_app.jobs.supervisor import Supervisor

__all__ = ["EventLog", "Job", "JobStore", "MemoryStore", "State", "Supervisor", "new_id"]
