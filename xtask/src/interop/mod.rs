//! The interop suites: the real clients, brokers and stores against the server under test.

mod cluster;
mod driver;
mod java;

use std::time::Duration;

use crate::test::Suite;

/// Every interop suite.
pub fn suites() -> Vec<Suite> {
    vec![client(), admin()]
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
