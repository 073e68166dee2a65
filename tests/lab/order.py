"""The rule that keeps packets from being sent where nothing delivers them, checked on the LM's events."""

import json

import scenario as scenarios


def check_order(events, prefix):
    """No redirect of a generation before its target has delivered at that generation: by order of arrival at the LM, and by the ARs' own
    clocks (on one machine, one clock). Returns how many redirects were checked."""
    delivering = {}
    checked = 0
    for event in events:
        if event.get("prefix") != prefix:
            continue
        generation = json.dumps(event["generation"], sort_keys=True)
        if event["type"] == "EVENT_TYPE_DELIVERING":
            delivering[generation, event["ar"]] = scenarios.timestamp_ns(event["at"])
        if event["type"] == "EVENT_TYPE_REDIRECTING":
            target = event["detail"].split()[-1]
            assert (generation, target) in delivering, f"redirect before its target delivered: {event}"
            assert delivering[generation, target] <= scenarios.timestamp_ns(event["at"]), event
            checked += 1
    assert checked > 0, f"no redirect of {prefix} among {len(events)} events"
    return checked
