"""What `presswork rehearse` is made of: a run at full size against the sandbox, and what it tells of the real one."""
