//! The interop suites: the real clients, brokers and stores against the server under test.

mod cluster;
mod driver;
pub mod java;
mod polyglot;
mod store;

use std::time::Duration;

use crate::test::Suite;

/// Every interop suite.
pub fn suites() -> Vec<Suite> {
    vec![client(), admin(), name_server(), store(), go(), node()]
}

fn client() -> Suite {
    Suite {
        name: "java-client",
        about: "RocketMQ's Java client against the server under test",
        budget: Duration::from_secs(300),
        needs: &["java", "mvn"],
        run: java::client_suite,
    }
}

fn admin() -> Suite {
    Suite {
        name: "java-admin",
        about: "RocketMQ's mqadmin against the server under test",
        budget: Duration::from_secs(120),
        needs: &["java", "mvn"],
        run: java::admin_suite,
    }
}

fn name_server() -> Suite {
    Suite {
        name: "java-namesrv",
        about: "our broker with RocketMQ's name server, RocketMQ's broker with ours",
        budget: Duration::from_secs(180),
        needs: &["java", "mvn"],
        run: java::name_server_suite,
    }
}

fn store() -> Suite {
    Suite {
        name: "java-store",
        about: "the broker's store opened and appended to by RocketMQ's store, and back",
        budget: Duration::from_secs(220),
        needs: &["java", "mvn"],
        run: store::suite,
    }
}

fn go() -> Suite {
    Suite {
        name: "go-client",
        about: "rocketmq-client-go v2 against the server under test",
        budget: Duration::from_secs(180),
        needs: &["go"],
        run: polyglot::go_suite,
    }
}

fn node() -> Suite {
    Suite {
        name: "node-client",
        about: "ali-ons against the server under test",
        budget: Duration::from_secs(120),
        needs: &["node", "npm"],
        run: polyglot::node_suite,
    }
}
