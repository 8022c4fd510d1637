"""Operate one machine and its Prefect: server, worker, work pools, deployments and automations.

It deploys and runs the content flows. The commands that people type use it.
"""
