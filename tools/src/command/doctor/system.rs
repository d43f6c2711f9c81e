//! Kernel, io_uring, resource limits, cores.
//!
//! Off the data path.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringraft_engine::config::NodeConfig;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Level};

/// What the executor needs: io_uring as of 5.8.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// What glommio asks for before it starts an executor.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Registered buffers and rings of one executor.
const MEMLOCK_BYTES_PER_SHARD: u64 = 2 << 20;
const OPEN_FILES_MIN: u64 = 4096;
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = KERNEL_MIN;
    let finding = match version(release) {
        Some(version) if version >= KERNEL_MIN => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::bad(
            "kernel",
            format!("Linux {release} is older than {major}.{minor}"),
            format!("io_uring as ringraft uses it needs Linux {major}.{minor}"),
        ),
        None => Finding::new(
            "kernel",
            Level::Warn,
            format!("unknown release {release:?}"),
            "run on Linux with /proc mounted",
        ),
    };
    finding.with("release", release)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn io_uring_allowed() -> Finding {
    let path = "/proc/sys/kernel/io_uring_disabled";
    let setting = fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let remedy = "sysctl -w kernel.io_uring_disabled=0 (and in /etc/sysctl.d to keep it)";
    match setting.as_deref() {
        None => Finding::ok("io_uring allowed", "this kernel has no switch for it"),
        Some("0") => Finding::ok("io_uring allowed", "kernel.io_uring_disabled = 0"),
        Some("1") => {
            let text = "kernel.io_uring_disabled = 1: only for members of kernel.io_uring_group and the privileged";
            Finding::new("io_uring allowed", Level::Warn, text, remedy)
        }
        Some(other) => Finding::bad("io_uring allowed", format!("kernel.io_uring_disabled = {other}"), remedy),
    }
}

/// Starts an executor as a node does, in a child: what goes wrong there may be a panic.
pub(super) fn executor(folder: &Path) -> Finding {
    const CHECK: &str = "io_uring works";
    let remedy = "look at the kernel and memlock findings; in a container allow the io_uring system calls in its \
                  seccomp profile (docker run --security-opt seccomp=unconfined to see whether that is it)";
    match run_probe(folder) {
        Ok(()) => Finding::ok(CHECK, "an executor started, wrote, synced and read a file with direct I/O"),
        Err(reason) => Finding::bad(CHECK, reason, remedy),
    }
}

fn run_probe(folder: &Path) -> Result<(), String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot find the own binary: {error}"))?;
    let mut command = Command::new(this);
    command.args(["doctor", "--probe-executor", "--data-dir"]).arg(folder);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("cannot start a child: {error}"))?;
    let deadline = Instant::now() + PROBE_PATIENCE;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("an executor did not finish a small file within {PROBE_PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
    Err(format!("an executor failed ({}): {}", output.status, said.join(" ")))
}

pub(super) fn memlock(shards: u16) -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let wanted = MEMLOCK_BYTES_PER_SHARD * u64::from(shards);
    let remedy = format!("ulimit -l {} (systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1)", wanted >> 10);
    let text = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    let finding = match limit {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Finding::bad("locked memory", text, remedy),
        Some(bytes) if bytes < wanted => Finding::new("locked memory", Level::Warn, text, remedy),
        _ => Finding::ok("locked memory", text),
    };
    finding.with("limit_bytes", limit)
}

pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let text = limit.map_or_else(|| "unlimited".to_owned(), |files| format!("{files} descriptors"));
    let level = if limit.is_some_and(|files| files < OPEN_FILES_MIN) { Level::Warn } else { Level::Ok };
    let remedy =
        format!("ulimit -n {OPEN_FILES_MIN} or more (systemd: LimitNOFILE=): each client connection takes one");
    Finding::new("open files", level, text, remedy).with("limit", limit)
}

pub(super) fn cores(shards: u16) -> Finding {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = format!("{cores} for {shards} shard(s)");
    let level = if usize::from(shards) > cores { Level::Warn } else { Level::Ok };
    Finding::new("cores", level, text, "have at most as many shards as cores").with("cores", cores)
}

/// Of a node without configuration: (tick, shortest election timeout), in milliseconds.
pub(super) fn default_timers_ms() -> (u64, u64) {
    let defaults = NodeConfig::default();
    (defaults.tick_ms, defaults.election_timeout_min_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.8"), Some((5, 8)));
        assert_eq!(version("5.10.0+"), Some((5, 10)));
        assert_eq!(version("weird"), None);
        assert!(version("5.4.1") < Some(KERNEL_MIN));
    }
}
