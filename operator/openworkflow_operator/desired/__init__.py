"""The objects of a fleet, and whether the live ones differ: functions of the resource alone.

Duty: manifests. No count of runs, state of a pod or time may enter them, since whatever changes a
pod template restarts a fleet; how many pods there are is `decide`'s.
"""
