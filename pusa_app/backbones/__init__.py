"""Model families behind one contract; import the family you need, torch comes with it."""

import logging

# What it has no faster kernel for on this CPU is nothing that a user can do anything about.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
