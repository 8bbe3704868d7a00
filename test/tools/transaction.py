#!/usr/bin/env python3
"""transaction.py - one Kafka transaction, a step at a time.

usage: transaction.py BOOTSTRAP TOPIC PARTITION TRANSACTIONAL_ID

Reads commands, one a line, and answers each with "ok" when it has taken effect:
    record VALUE    a record, in the log but not committed
    commit, abort   the end of the transaction; the next record begins another
At the end of input an open transaction stays open, until the broker's
transaction.timeout.ms (a quarter of an hour here) or a producer of the same id ends it.
"""
import ctypes
import sys

TIMEOUT_MS = 60000
COPY = 2                # RD_KAFKA_MSG_F_COPY

lib = ctypes.CDLL('librdkafka.so.1')
for name in ('rd_kafka_conf_new', 'rd_kafka_new', 'rd_kafka_topic_new',
             'rd_kafka_init_transactions', 'rd_kafka_begin_transaction',
             'rd_kafka_commit_transaction', 'rd_kafka_abort_transaction'):
    getattr(lib, name).restype = ctypes.c_void_p
lib.rd_kafka_error_string.restype = ctypes.c_char_p
lib.rd_kafka_err2str.restype = ctypes.c_char_p


def pointer(address):
    return ctypes.c_void_p(address)


def check(error):
    """Ends the program if an rd_kafka_error_t says so."""
    if error:
        sys.exit(lib.rd_kafka_error_string(pointer(error)).decode())


def connect(bootstrap, transactional_id):
    conf = lib.rd_kafka_conf_new()
    message = ctypes.create_string_buffer(512)
    for key, value in (('bootstrap.servers', bootstrap), ('transactional.id', transactional_id),
                       ('transaction.timeout.ms', '900000'), ('linger.ms', '0')):
        if lib.rd_kafka_conf_set(pointer(conf), key.encode(), value.encode(), message, 512) != 0:
            sys.exit(message.value.decode())
    client = lib.rd_kafka_new(0, pointer(conf), message, 512)
    if not client:
        sys.exit(message.value.decode())
    check(lib.rd_kafka_init_transactions(pointer(client), TIMEOUT_MS))
    return client


def main():
    bootstrap, topic_name, partition, transactional_id = sys.argv[1:]
    client = connect(bootstrap, transactional_id)
    topic = lib.rd_kafka_topic_new(pointer(client), topic_name.encode(), None)
    is_open = False
    for line in sys.stdin:
        command, _, value = line.rstrip('\n').partition(' ')
        if command == 'record':
            if not is_open:
                check(lib.rd_kafka_begin_transaction(pointer(client)))
                is_open = True
            payload = value.encode()
            if lib.rd_kafka_produce(pointer(topic), int(partition), COPY, payload,
                                    ctypes.c_size_t(len(payload)), None, ctypes.c_size_t(0), None) != 0:
                sys.exit(lib.rd_kafka_err2str(lib.rd_kafka_last_error()).decode())
            if lib.rd_kafka_flush(pointer(client), TIMEOUT_MS) != 0:
                sys.exit('the broker does not take the record')
        elif command in ('commit', 'abort'):
            end = getattr(lib, f'rd_kafka_{command}_transaction')
            check(end(pointer(client), TIMEOUT_MS))
            is_open = False
        else:
            sys.exit(f'not a command: {line}')
        print('ok', flush=True)


if __name__ == '__main__':
    main()
