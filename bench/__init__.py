"""The benchmark: Presswork and a bare loop side by side, in one run, on one machine (`make bench`).

Read rows.py (the measurements), stage.py (the sandbox, Prefect's server and the data), clients/ (each measures once, in
its own process), meter.py (CPU and memory) and table.py (the output).
"""
