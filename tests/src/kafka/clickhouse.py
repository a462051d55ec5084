"""Runs the statements of files in ClickHouse inside this process, with a table in the place of the Kafka engine's."""

import json
import re
import sys

from chdb.session import Session

STAND_IN = """,
    `_headers.name` Array(String), `_headers.value` Array(String), _topic String, _partition UInt64, _offset UInt64,
    _error String
)
ENGINE = Null"""


def statements(path):
    with open(path) as file:
        text = re.sub(r"^\s*--.*$", "", file.read(), flags=re.MULTILINE)
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def main(files):
    session = Session()
    for path in files:
        for statement in statements(path):
            if "ENGINE = Kafka" in statement:
                # What is run is all but the engine: its statement is only parsed.
                session.query(f"EXPLAIN AST {statement}")
                statement = re.sub(r"\n\)\nENGINE = Kafka.*", STAND_IN, statement, flags=re.DOTALL)
            session.query(statement)
    rows = []
    for line in sys.stdin:
        message = json.loads(line)
        headers = message["headers"]
        around = {
            "_headers.name": list(headers),
            "_headers.value": list(headers.values()),
            "_topic": "minimizer",
            "_partition": message["partition"],
        }
        rows += [json.dumps({**json.loads(value), **around}) for value in message["value"].split("\n")]
    broken = json.dumps({"_headers.name": [], "_headers.value": [], "_error": "no JSON", "_offset": 7})
    for begin in range(0, len(rows), 10_000):
        block = "\n".join([*rows[begin : begin + 10_000], broken])
        session.query(f"INSERT INTO minimizer.topic FORMAT JSONEachRow {block}")
    session.query("SYSTEM REFRESH VIEW minimizer.records_hourly")
    session.query("SYSTEM WAIT VIEW minimizer.records_hourly")
    answers = {
        "records": "SELECT count(), sum(packetDeltaCount), sum(octetDeltaCount), uniqExact(exporter), "
        "uniqExact(sourceAddress), countIf(icmpType IS NOT NULL), min(flowEndMilliseconds) FROM minimizer.records FINAL",
        "hourly": "SELECT sum(records), sum(packets), sum(octets) FROM minimizer.hourly FINAL",
        "unreadable": "SELECT count() FROM minimizer.unreadable",
    }
    print(json.dumps({name: json.loads(str(session.query(query, "JSONCompact")))["data"][0] for name, query in answers.items()}))


main(sys.argv[1:])
