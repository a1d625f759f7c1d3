#!/usr/bin/env python3
"""summary.py BUILD...: adds up the last meson test run of each build folder, names what failed and what was
skipped, and closes with `N passed, N failed, N skipped`. Exit status 1 where anything failed or nothing ran."""
import json
import os
import sys
import xml.etree.ElementTree as ET


def count(build):
    """(passed, failures, skips) of a build's junit report; a report that is missing is a failure."""
    path = os.path.join(build, "meson-logs", "testlog.junit.xml")
    name = os.path.basename(build)
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as e:
        return 0, [f"{name}: no report ({e})"], []
    passed, failed, skipped = 0, [], []
    for suite in root.iter("testsuite"):
        for case in suite.iter("testcase"):
            what = f"{name}: {suite.get('name')}: {case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(what)
            elif case.find("skipped") is not None:
                skipped.append(what)
            else:
                passed += 1
    # A program that dies, or leaks, after its tests leaves no failing case behind: meson's own verdict counts too.
    with open(os.path.join(build, "meson-logs", "testlog.json"), encoding="utf-8") as f:
        for line in f:
            test = json.loads(line)
            if test["result"] not in ("OK", "SKIP") and not any(test["name"] in what for what in failed):
                failed.append(f"{name}: {test['name']} ended with {test['result']}")
    return passed, failed, skipped


def main():
    passed, failed, skipped = 0, [], []
    for build in sys.argv[1:]:
        p, f, s = count(build)
        passed, failed, skipped = passed + p, failed + f, skipped + s
    for what in skipped:
        print("skipped", what)
    for what in failed:
        print("FAILED", what)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
