"""Runs playbooks as Prefect flows, and without Prefect when it does not answer. The only room that imports Prefect.

Nothing here is imported by the rest: `python -m clawback.orchestrate` is a process of its own, started warm by `watch`
(see `clawback.services.responder`), so that no one waits for Prefect's 0.7 s of import.
"""
