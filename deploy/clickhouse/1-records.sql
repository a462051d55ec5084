-- Records of all hosts, as read from Kafka. Each record is here once, even if Kafka has its message twice.

CREATE DATABASE IF NOT EXISTS minimizer;

CREATE TABLE IF NOT EXISTS minimizer.records
(
    -- The record's owner, from the headers of its message.
    recipient LowCardinality(String),
    exporter LowCardinality(String),
    policy LowCardinality(String) COMMENT 'SHA-256 of the policy in force',
    run LowCardinality(String) COMMENT 'drawn when the agent started',
    batch UInt64 COMMENT 'number of the interval since the agent started',
    batch_begin DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    batch_end DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD),
    message UInt64 CODEC(Delta, ZSTD) COMMENT 'number of the message in its batch',

    -- The record. NULL means that the policy omits the value or the packets have none. IPv4 addresses are
    -- mapped (::ffff:0:0/96).
    sourceAddress Nullable(IPv6) CODEC(ZSTD),
    destinationAddress Nullable(IPv6) CODEC(ZSTD),
    sourceTransportPort Nullable(UInt16),
    destinationTransportPort Nullable(UInt16),
    protocolIdentifier Nullable(UInt8),
    ipClassOfService Nullable(UInt8),
    tcpControlBits Nullable(UInt16),
    icmpType Nullable(UInt8),
    icmpCode Nullable(UInt8),
    vlanId Nullable(UInt16),
    dot1qCustomerVlanId Nullable(UInt16),
    ingressInterface Nullable(UInt32),
    selectorId Nullable(UInt64),
    packetDeltaCount Nullable(UInt64),
    octetDeltaCount Nullable(UInt64),
    flowStartMilliseconds Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD),
    flowEndMilliseconds Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD),

    -- Distinguishes the records of one message. No two records of a batch are equal.
    record UInt64 MATERIALIZED sipHash64(
        ifNull(toString(sourceAddress), ''), ifNull(toString(destinationAddress), ''),
        ifNull(toString(sourceTransportPort), ''), ifNull(toString(destinationTransportPort), ''),
        ifNull(toString(protocolIdentifier), ''), ifNull(toString(ipClassOfService), ''),
        ifNull(toString(tcpControlBits), ''), ifNull(toString(icmpType), ''), ifNull(toString(icmpCode), ''),
        ifNull(toString(vlanId), ''), ifNull(toString(dot1qCustomerVlanId), ''),
        ifNull(toString(ingressInterface), ''), ifNull(toString(selectorId), ''),
        ifNull(toString(packetDeltaCount), ''), ifNull(toString(octetDeltaCount), ''),
        ifNull(toString(flowStartMilliseconds), ''), ifNull(toString(flowEndMilliseconds), ''))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(batch_begin)
ORDER BY (recipient, exporter, batch_begin, run, batch, message, record)
-- One line for each recipient, with its `retention` from the policy. The last line is for recipients without
-- a line.
TTL toDateTime(batch_end) + INTERVAL 90 DAY DELETE WHERE recipient = 'operations',
    toDateTime(batch_end) + INTERVAL 7 DAY DELETE WHERE recipient != 'operations'
-- ClickHouse drops a part as a whole if all its rows are too old. It rewrites other parts at least this
-- often.
SETTINGS merge_with_ttl_timeout = 3600;

-- Messages that are not records. People look at them; the table keeps them no longer than the shortest
-- retention.
CREATE TABLE IF NOT EXISTS minimizer.unreadable
(
    received DateTime DEFAULT now(),
    topic LowCardinality(String),
    partition UInt64,
    offset UInt64,
    error String
)
ENGINE = MergeTree
ORDER BY received
TTL received + INTERVAL 7 DAY DELETE;
