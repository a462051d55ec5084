-- Moves records from the topic into the tables. Set the brokers, the topic and the access to them. Use at
-- most one consumer for each partition.

CREATE TABLE IF NOT EXISTS minimizer.topic
(
    sourceIPv4Address Nullable(IPv4),
    destinationIPv4Address Nullable(IPv4),
    sourceIPv6Address Nullable(IPv6),
    destinationIPv6Address Nullable(IPv6),
    sourceTransportPort Nullable(UInt16),
    destinationTransportPort Nullable(UInt16),
    protocolIdentifier Nullable(UInt8),
    ipClassOfService Nullable(UInt8),
    tcpControlBits Nullable(UInt16),
    icmpTypeIPv4 Nullable(UInt8),
    icmpCodeIPv4 Nullable(UInt8),
    icmpTypeIPv6 Nullable(UInt8),
    icmpCodeIPv6 Nullable(UInt8),
    vlanId Nullable(UInt16),
    dot1qCustomerVlanId Nullable(UInt16),
    ingressInterface Nullable(UInt32),
    selectorId Nullable(UInt64),
    packetDeltaCount Nullable(UInt64),
    octetDeltaCount Nullable(UInt64),
    flowStartMilliseconds Nullable(UInt64),
    flowEndMilliseconds Nullable(UInt64)
)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka-1.example.net:9092,kafka-2.example.net:9092',
    kafka_topic_list = 'minimizer',
    kafka_group_name = 'clickhouse',
    kafka_format = 'JSONEachRow',
    kafka_num_consumers = 4,
    kafka_max_block_size = 1048576,
    kafka_flush_interval_ms = 7500,
    kafka_handle_error_mode = 'stream';

CREATE MATERIALIZED VIEW IF NOT EXISTS minimizer.topic_records TO minimizer.records AS
WITH `_headers.value`[indexOf(`_headers.name`, 'begin')] AS begin, `_headers.value`[indexOf(`_headers.name`, 'end')] AS end
SELECT
    `_headers.value`[indexOf(`_headers.name`, 'recipient')] AS recipient,
    `_headers.value`[indexOf(`_headers.name`, 'exporter')] AS exporter,
    `_headers.value`[indexOf(`_headers.name`, 'policy')] AS policy,
    `_headers.value`[indexOf(`_headers.name`, 'run')] AS run,
    toUInt64OrZero(`_headers.value`[indexOf(`_headers.name`, 'batch')]) AS batch,
    fromUnixTimestamp64Milli(toInt64OrZero(begin), 'UTC') AS batch_begin,
    fromUnixTimestamp64Milli(toInt64OrZero(end), 'UTC') AS batch_end,
    toUInt64OrZero(`_headers.value`[indexOf(`_headers.name`, 'message')]) AS message,
    ifNull(sourceIPv6Address, toIPv6(sourceIPv4Address)) AS sourceAddress,
    ifNull(destinationIPv6Address, toIPv6(destinationIPv4Address)) AS destinationAddress,
    sourceTransportPort,
    destinationTransportPort,
    protocolIdentifier,
    ipClassOfService,
    tcpControlBits,
    ifNull(icmpTypeIPv4, icmpTypeIPv6) AS icmpType,
    ifNull(icmpCodeIPv4, icmpCodeIPv6) AS icmpCode,
    vlanId,
    dot1qCustomerVlanId,
    ingressInterface,
    selectorId,
    packetDeltaCount,
    octetDeltaCount,
    fromUnixTimestamp64Milli(toInt64(topic.flowStartMilliseconds), 'UTC') AS flowStartMilliseconds,
    fromUnixTimestamp64Milli(toInt64(topic.flowEndMilliseconds), 'UTC') AS flowEndMilliseconds
FROM minimizer.topic
WHERE empty(_error);

CREATE MATERIALIZED VIEW IF NOT EXISTS minimizer.topic_unreadable TO minimizer.unreadable AS
SELECT _topic AS topic, _partition AS partition, _offset AS offset, _error AS error
FROM minimizer.topic
WHERE notEmpty(_error);
