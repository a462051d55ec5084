-- Hourly sums without addresses. ClickHouse computes the last two days anew every ten minutes, from records
-- that are there once. A view over inserts would count a message twice if Kafka has it twice.

CREATE TABLE IF NOT EXISTS minimizer.hourly
(
    recipient LowCardinality(String),
    exporter LowCardinality(String),
    hour DateTime('UTC'),
    protocolIdentifier UInt8,
    destinationTransportPort UInt16,
    records UInt64,
    packets UInt64,
    octets UInt64,
    made DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(made)
PARTITION BY toYYYYMM(hour)
ORDER BY (recipient, hour, exporter, protocolIdentifier, destinationTransportPort)
-- The policy decides how long: keep a sum of records no longer than its recipient may keep it.
TTL hour + INTERVAL 400 DAY DELETE;

CREATE MATERIALIZED VIEW IF NOT EXISTS minimizer.records_hourly REFRESH EVERY 10 MINUTE APPEND TO minimizer.hourly AS
SELECT
    recipient,
    exporter,
    toStartOfHour(toDateTime(batch_begin, 'UTC')) AS hour,
    ifNull(protocolIdentifier, 0) AS protocolIdentifier,
    -- Clients have ports from 1024 on: of Linux 32768 to 60999, behind NAT any of them.
    if(ifNull(destinationTransportPort, 0) < 1024, ifNull(destinationTransportPort, 0), 0) AS destinationTransportPort,
    count() AS records,
    sum(ifNull(packetDeltaCount, 0)) AS packets,
    sum(ifNull(octetDeltaCount, 0)) AS octets,
    now64(3) AS made
FROM minimizer.records FINAL
WHERE batch_begin >= toStartOfHour(now() - INTERVAL 2 DAY)
GROUP BY recipient, exporter, hour, protocolIdentifier, destinationTransportPort;
