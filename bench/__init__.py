"""The benchmark: Presswork and a bare loop side by side, in one run, on one machine (`make bench`).

Read rows.py (what is measured), stage.py (the sandbox, Prefect's server and the data it is measured with), client.py
(one measurement, in a process of its own: bare.py, content.py or load.py), meter.py (CPU and memory), and table.py
(what is shown).
"""
