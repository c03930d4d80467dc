//! A small blocking RocketMQ remoting client, for the command line and the load generator.
