"""How work reports its progress, is shared among jobs, and is dropped when it is asked to stop.

progress.py      how work reports its progress
worker.py        one of N jobs that share work
interruption.py  work that is dropped in the middle when it is asked to stop
"""
