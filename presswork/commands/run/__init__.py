"""`presswork run` and `presswork demo`: one job, watched while it runs and summed up when it ends."""
