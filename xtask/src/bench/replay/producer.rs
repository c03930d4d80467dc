//! Producers that send at a fixed rate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use remoting::{Command, ResponseCode};

use super::super::frames::Template;
use super::super::load::{self, QUEUES};
use super::{BODY_LEN, LIMIT, NEW_TOPIC};

/// Sends of all producers together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sends {
    pub(super) producers: u64,
    pub(super) per_second: u64,
    pub(super) duration: Duration,
}

impl Sends {
    /// Sends; returns how many nanoseconds after it was due each send was answered.
    pub(super) fn run(self, address: SocketAddr) -> Result<Histogram<u64>> {
        let parts = thread::scope(|scope| {
            let producers: Vec<_> = (0..self.producers)
                .map(|number| scope.spawn(move || self.produce(address, number)))
                .collect();
            let ends = producers.into_iter().map(|producer| producer.join());
            ends.collect::<Vec<_>>()
        });
        let mut all = latencies()?;
        for part in parts {
            all.add(part.map_err(|_| anyhow!("a producer panicked"))??)?;
        }
        Ok(all)
    }

    fn produce(self, address: SocketAddr, number: u64) -> Result<Histogram<u64>> {
        let interval = Duration::from_secs(self.producers).div_f64(self.per_second as f64);
        let mut latency_ns = latencies()?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let template = Template::send(NEW_TOPIC, BODY_LEN);
        let (mut frame, mut answer) = (Vec::new(), vec![0; 64 * 1024]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut sequence = now.as_nanos() as u64 ^ (number << 56);
        // Not all at the same time.
        let begun = Instant::now() + interval.mul_f64(number as f64 / self.producers as f64);
        for count in 0.. {
            let due = begun + interval * count;
            if due >= begun + self.duration {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            frame.clear();
            let queue = (count % u32::from(QUEUES)) as u8;
            template.push(&mut frame, 0, queue, &mut sequence);
            stream.write_all(&frame)?;
            let mut filled = 0;
            while load::frame_len(&answer[..filled]).is_none() {
                match stream.read(&mut answer[filled..])? {
                    0 => bail!("{address} closed the connection"),
                    len => filled += len,
                }
            }
            let answered = Command::decode(&answer[..filled])?;
            let code = answered.response_code();
            ensure!(
                code == ResponseCode::SUCCESS,
                "refused: {:?}",
                answered.remark
            );
            latency_ns.saturating_record(due.elapsed().as_nanos() as u64);
        }
        Ok(latency_ns)
    }
}

fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}
