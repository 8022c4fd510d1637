"""The control room: what operators work with, built of Prefect's own server, work pools, workers and deployments.

It stands above the content flows, which it deploys and runs, and below the commands, which people type.
"""
