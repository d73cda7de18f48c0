"""Model families behind one contract; import the family you need, torch comes with it."""
