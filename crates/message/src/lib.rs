//! RocketMQ's stored message record: encode, decode, properties, ids, CRC. Pure: no I/O.
