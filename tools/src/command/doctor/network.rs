//! The loopback round trip: what a commit among local nodes pays besides the flush.
//!
//! Off the data path.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{Finding, Level};

const MESSAGE_BYTES: usize = 64;
const ROUND_TRIPS: u32 = 2_000;
const PATIENCE: Duration = Duration::from_secs(5);
const WARN_P50_US: u64 = 1_000;

pub(super) fn loopback() -> Finding {
    match measure() {
        Ok(histogram) => {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| histogram.value_at_quantile(quantile));
            let text = format!("{MESSAGE_BYTES} B round trip p50 {p50} us, p99 {p99} us, p99.9 {p999} us");
            let level = if p50 > WARN_P50_US { Level::Warn } else { Level::Ok };
            let finding = Finding::new("loopback", level, text, "something keeps the cores busy or filters loopback");
            finding.with("round_trip_p50_us", p50).with("round_trip_p99_us", p99).with("round_trip_p999_us", p999)
        }
        Err(error) => {
            Finding::bad("loopback", format!("{error:#}"), "allow TCP connections over the loopback interface")
        }
    }
}

pub(super) fn measure() -> Result<Histogram<u64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    for end in [&stream, &other] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
    }
    let echo = std::thread::spawn(move || {
        pin(1);
        let mut message = [0; MESSAGE_BYTES];
        while other.read_exact(&mut message).is_ok() && other.write_all(&message).is_ok() {}
    });
    let asking = std::thread::spawn(move || ask(&mut stream));
    let histogram = asking.join().map_err(|_| anyhow!("the asking thread panicked"))?;
    echo.join().map_err(|_| anyhow!("the echo thread panicked"))?;
    histogram
}

/// Round trips of one thread, pinned to another core than the echo: on one core a switch would be measured.
fn ask(stream: &mut TcpStream) -> Result<Histogram<u64>> {
    pin(0);
    let mut histogram = Histogram::new(3)?;
    let mut message = [1; MESSAGE_BYTES];
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        histogram.record(start.elapsed().as_micros() as u64)?;
        if Instant::now() > deadline {
            break;
        }
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(histogram)
}

/// Keeps the calling thread on the allowed core of this number, if there is one.
fn pin(number: usize) {
    if let Ok(allowed) = sched_getaffinity(None)
        && let Some(core) = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(number)
    {
        let mut one = CpuSet::new();
        one.set(core);
        let _ = sched_setaffinity(None, &one); // a hint: the figure is only less steady without
    }
}
