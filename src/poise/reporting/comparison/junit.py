"""A gate's verdict as JUnit XML, which every CI system shows: one test case a limit."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from poise.evaluation.gate import Judgement

_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""


def junit_xml(judgement: Judgement, name: str) -> str:
    """The verdicts as a test suite: a broken limit is a failure, one that cannot be judged an error.

    The elements and attributes are those of Ant's JUnit format that all readers share; there are no times in it, so
    that the same profiles give the same bytes.

    Args:
        judgement: what became of a gate.
        name: of the suite, such as "old → new".
    """
    outcomes = [verdict.outcome for verdict in judgement.verdicts]
    suites = ET.Element("testsuites", name="poise compare")
    suite = ET.SubElement(suites, "testsuite", name=_clean(name))
    for element in (suites, suite):
        element.set("tests", str(len(outcomes)))
        element.set("failures", str(outcomes.count("failed")))
        element.set("errors", str(outcomes.count("cannot be judged")))
        element.set("time", "0")
    for verdict in judgement.verdicts:
        case = ET.SubElement(suite, "testcase", classname="poise.gate", name=_clean(str(verdict.limit)), time="0")
        if verdict.outcome == "passed":
            ET.SubElement(case, "system-out").text = _clean(verdict.reason)
        else:
            kind, tag = ("broken", "failure") if verdict.outcome == "failed" else ("unjudged", "error")
            told = ET.SubElement(case, tag, type=f"poise.gate.{kind}", message=_clean(verdict.reason))
            told.text = _clean(f"{verdict.limit}: {verdict.outcome}. {verdict.reason}")
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
