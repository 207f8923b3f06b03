"""How work tells where it is, is shared among jobs, and is dropped when somebody asks to stop.

progress.py      how long work tells its watcher where it is
worker.py        one of N jobs that share work
interruption.py  work that is dropped where it stands when asked to stop
"""
