"""The job process: what runs in RQ, and the clock that says when."""
