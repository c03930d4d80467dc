//! A consumer that goes through old messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use client::Connection;
use remoting::header::{PullMessageRequestHeader, PullMessageResponseHeader, pull_flag};
use remoting::{Command, RequestCode, ResponseCode};
use rustix::process::setpriority_process;

use super::super::load::QUEUES;
use super::{LIMIT, OLD_TOPIC};

/// The consumer has its processors elsewhere: it runs when nobody else wants to.
const NICE: i32 = 19;

/// Pulls all old messages, again from the first where there are no more, until it is told to stop,
/// at so many bytes a second; returns MB a second.
pub(super) fn replay(
    address: SocketAddr,
    bytes_max: Option<u64>,
    stop: &AtomicBool,
) -> Result<f64> {
    // Of this thread alone, whatever the call is named.
    setpriority_process(None, NICE)?;
    let mut connection = Connection::connect(&address.to_string(), LIMIT)?;
    let mut offsets = [0_i64; QUEUES as usize];
    let (mut len, mut sum) = (0_u64, 0_u64);
    let begun = Instant::now();
    while !stop.load(Ordering::Acquire) {
        for (queue_id, offset) in (0..).zip(&mut offsets) {
            let header = PullMessageRequestHeader {
                consumer_group: "replay",
                topic: OLD_TOPIC,
                queue_id,
                queue_offset: *offset,
                max_msg_nums: 32,
                sys_flag: pull_flag::SUBSCRIPTION,
                subscription: Some("*"),
                ..Default::default()
            };
            let request = Command::request(RequestCode::PULL_MESSAGE).with_header(&header);
            let answer = connection.call(request)?;
            match answer.response_code() {
                ResponseCode::SUCCESS => {
                    let found: PullMessageResponseHeader = answer.header()?;
                    *offset = found.next_begin_offset;
                    len += answer.body.len() as u64;
                    sum += answer.body.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                }
                ResponseCode::PULL_NOT_FOUND => *offset = 0,
                ResponseCode::FLOW_CONTROL => {}
                code => bail!("pull refused with {code}: {:?}", answer.remark),
            }
        }
        if let Some(most) = bytes_max {
            let due = begun + Duration::from_secs_f64(len as f64 / most as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    std::hint::black_box(sum);
    Ok(len as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
