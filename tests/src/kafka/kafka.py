"""Kafka for tests, through librdkafka: brokers of its own, topics, everything that a topic holds, TLS before a broker."""

import asyncio
import ctypes
import glob
import json
import os
import ssl
import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

LIMIT_SECONDS = 120


def quiet(properties):
    """The client says what fails as exceptions, and not on the standard error."""
    return {"log_level": 0, "error_cb": lambda error: None, **properties}


def mock(topic, partitions):
    """Three brokers inside this process, until the standard input ends; each line of it is a command."""
    folder = os.path.join(os.path.dirname(confluent_kafka.__file__), "..", "confluent_kafka.libs")
    (path,) = glob.glob(os.path.join(folder, "librdkafka*"))
    library = ctypes.CDLL(path)
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    said = ctypes.create_string_buffer(512)
    library.rd_kafka_conf_set(conf, b"log_level", b"0", said, len(said))
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, said, len(said)))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, 3))
    assert library.rd_kafka_mock_topic_create(cluster, topic.encode(), int(partitions), 3) == 0
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["down"]:
                answers = [library.rd_kafka_mock_broker_set_down(cluster, broker) for broker in (1, 2, 3)]
            case ["up"]:
                answers = [library.rd_kafka_mock_broker_set_up(cluster, broker) for broker in (1, 2, 3)]
            case ["delay", milliseconds]:
                delay = int(milliseconds)
                answers = [library.rd_kafka_mock_broker_set_rtt(cluster, broker, delay) for broker in (1, 2, 3)]
            case ["fail", code]:
                library.rd_kafka_mock_push_request_errors(cluster, ctypes.c_int16(0), ctypes.c_size_t(1), int(code))
                answers = [0]
        assert not any(answers), answers
        print("done", flush=True)


def create(topic, partitions, properties):
    """Makes the topic, as soon as the broker lets it."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            admin = AdminClient(quiet(properties))
            admin.list_topics(timeout=1)
            for made in admin.create_topics([NewTopic(topic, int(partitions), 1)]).values():
                made.result()
            return
        except KafkaException:
            if time.monotonic() > deadline:
                raise


def consume(topic, properties):
    """Prints everything that is in the topic now, from its begin on."""
    reading = {"group.id": "test", "enable.auto.commit": False, "fetch.message.max.bytes": 16 << 20}
    consumer = Consumer(quiet({**reading, **properties}))
    partitions = consumer.list_topics(topic, timeout=LIMIT_SECONDS).topics[topic].partitions
    ends = {}
    for partition in partitions:
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=LIMIT_SECONDS)
        if end > begin:
            ends[partition] = end
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    deadline = time.monotonic() + LIMIT_SECONDS
    while ends:
        assert time.monotonic() < deadline, f"partitions did not come to their ends: {ends}"
        for message in consumer.consume(10_000, timeout=0.2):
            if message.error():
                raise KafkaException(message.error())
            key, headers = message.key(), message.headers() or []
            shown = {
                "partition": message.partition(),
                "key": None if key is None else key.hex(),
                "value": message.value().decode(),
                "headers": {name: value.decode() for name, value in headers},
                "time_ms": message.timestamp()[1],
            }
            print(json.dumps(shown))
            if message.offset() + 1 >= ends.get(message.partition(), 0):
                ends.pop(message.partition(), None)
    consumer.close()


def encrypt(port, broker, certificate, key, ca):
    """TLS on a port, before a broker without it; who connects must have a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def copy(reader, writer):
        try:
            while octets := await reader.read(1 << 16):
                writer.write(octets)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader, writer):
        host, its_port = broker.rsplit(":", 1)
        its_reader, its_writer = await asyncio.open_connection(host, int(its_port))
        await asyncio.gather(copy(reader, its_writer), copy(its_reader, writer))

    async def serve():
        server = await asyncio.start_server(connected, "127.0.0.1", int(port), ssl=context)
        print("ready", flush=True)
        await server.serve_forever()

    asyncio.run(serve())


def main(verb, *arguments):
    properties = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    plain = [argument for argument in arguments if "=" not in argument]
    match verb:
        case "mock":
            mock(*plain)
        case "create":
            create(*plain, properties)
        case "consume":
            consume(*plain, properties)
        case "encrypt":
            encrypt(*plain)


main(*sys.argv[1:])
