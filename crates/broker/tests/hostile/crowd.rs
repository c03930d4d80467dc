//! Very many connections, and peers that never read.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Served, connect, pull, pull_request, send, until};

const MIB: u64 = 1024 * 1024;

#[test]
fn ten_thousand_idle_connections_cost_little() {
    // Half of our own descriptors are for the tests beside this one.
    let wanted = 12_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let count = 10_000.min(allowed.saturating_sub(1_000)) as usize;
    if count < 10_000 {
        eprintln!("ONLY {count} CONNECTIONS: this process may open {allowed} files");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Served::start(dir.path(), "");
    let before = broker.memory();
    let idle: Vec<_> = (0..count)
        .map(|_| TcpStream::connect(&broker.address).unwrap())
        .collect();
    let mut client = connect(&broker.address);
    assert_eq!(send(&mut client, "Crowd", 0, b"served"), Ok(0));
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 100 * MIB, "{grown} bytes for {count} connections");
    drop(idle);
    broker.assert_well();
}

#[test]
fn a_client_that_never_reads_is_closed_and_memory_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "foliomq.writeStallMillis=300\nmaxTransferBytesOnMessageInMemory=1048576\n\
                  foliomq.outboundHighWaterBytes=1048576";
    let mut broker = Served::start(dir.path(), limits);
    let mut bystander = connect(&broker.address);
    for number in 0..32 {
        let body = vec![number; 32 * 1024];
        send(&mut bystander, "Heavy", 0, &body).unwrap();
    }
    until("all is dispatched", || {
        (pull(&mut bystander, "Heavy", 0, 31).messages.len() == 1).then_some(())
    });
    let before = broker.memory();
    let mut deaf = TcpStream::connect(&broker.address).unwrap();
    let mut bytes = Vec::new();
    let request = pull_request("Heavy", 0, 0, None);
    request.with_opaque(1).encode(&mut bytes).unwrap();
    // Far more answers than any buffer holds; the broker stops reading, then closes.
    deaf.set_write_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let mut asked = 0u64;
    let gone = loop {
        match deaf.write_all(&bytes) {
            Ok(()) => asked += 1,
            Err(error) => break error,
        }
        if asked.is_multiple_of(1_000) {
            assert_eq!(pull(&mut bystander, "Heavy", 0, 31).messages.len(), 1);
            let grown = broker.memory().saturating_sub(before);
            assert!(grown < 32 * MIB, "{grown} bytes after {asked} pulls");
        }
    };
    let kind = gone.kind();
    assert_ne!(
        kind,
        std::io::ErrorKind::WouldBlock,
        "closed, not left hanging"
    );
    until("the log says so", || {
        broker.log().contains("Stalled").then_some(())
    });
    broker.assert_well();
}
