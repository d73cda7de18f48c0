"""Jobs, their states and events, the store that keeps them, the supervisor of the workers. Standard library only."""

from pusa_app.jobs.job import Job, State, new_id
from pusa_app.jobs.log import EventLog
from pusa_app.jobs.store import JobStore
from pusa_app.jobs.supervisor import Supervisor

__all__ = ["EventLog", "Job", "JobStore", "State", "Supervisor", "new_id"]
