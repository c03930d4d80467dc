//! RocketMQ's wire protocol: frames, headers, bodies. Pure: no I/O.
