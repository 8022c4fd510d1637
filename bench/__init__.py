"""The benchmark: Presswork and a bare loop side by side, in one run, on one machine (`make bench`).

Read rows.py and measures/ (what is measured), stage.py (the sandbox, Prefect's server and the data), clients/ (each in
a process of its own), meter.py (CPU and memory) and table.py (the output).
"""
