//! What the servers and the machine did during the window: CPU, memory, bytes and device writes, from `/proc` and `/sys`.
//!
//! Off the data path: read twice per run, at the edges of the window.
//!
//! ```text
//! /proc/PID/stat      fields 14, 15   user and system time of all threads, io_uring workers included, in ticks
//! /proc/PID/io        write_bytes     bytes that went towards a device
//! /proc/PID/status    VmRSS, VmHWM    resident memory, now and at most
//! /proc/stat          cpu             the whole machine, for kernel threads that belong to nobody, and steal
//! /sys/dev/block/M:m/stat             write requests, sectors and flushes of the whole device, whoever caused them
//! ```
//!
//! It does not guess: a figure that cannot be read is absent from the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;

/// A process that serves, and whose CPU, memory and writes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerProcess {
    /// Its process id.
    pub pid: u32,
    /// The node it is.
    pub node: u64,
}

/// A block device by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
}

impl DeviceNumber {
    fn of(device: u64) -> Self {
        // The kernel's encoding of dev_t in 64 bits.
        Self {
            major: ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff),
            minor: (device & 0xff) | ((device >> 12) & !0xff),
        }
    }

    /// The folder of the device in sysfs.
    #[must_use]
    pub fn sysfs(self) -> String {
        format!("/sys/dev/block/{}:{}", self.major, self.minor)
    }
}

/// Cumulative figures at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Answers the generator had received.
    pub completed: u64,
    /// CPU of all server processes, µs.
    pub server_cpu_us: Option<u64>,
    /// Bytes the server processes wrote.
    pub server_written_bytes: Option<u64>,
    /// Resident memory of all server processes together.
    pub server_rss_bytes: Option<u64>,
    /// Sum of their highest resident memory so far.
    pub server_rss_peak_bytes: Option<u64>,
    /// CPU of this process, µs.
    pub generator_cpu_us: u64,
    /// Busy time of all processors, µs.
    pub machine_cpu_us: Option<u64>,
    /// Time the hypervisor gave to others, µs.
    pub machine_steal_us: Option<u64>,
    /// The devices below the servers' files, summed.
    pub device: Option<DeviceCounters>,
}

/// Counters of a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Write requests completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Cache flushes completed.
    pub flushes: u64,
}

/// Takes samples of the same processes and devices.
#[derive(Clone, Debug)]
pub struct Sampler {
    servers: Vec<ServerProcess>,
    devices: BTreeSet<DeviceNumber>,
    tick_us: u64,
}

impl Sampler {
    /// Watches these processes and the devices their open files are on.
    #[must_use]
    pub fn new(servers: &[ServerProcess]) -> Self {
        let devices = servers.iter().flat_map(|server| devices_of(server.pid)).collect();
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Self { servers: servers.to_vec(), devices, tick_us }
    }

    /// The processes.
    #[must_use]
    pub fn servers(&self) -> &[ServerProcess] {
        &self.servers
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &BTreeSet<DeviceNumber> {
        &self.devices
    }

    /// Reads everything once. `completed` is what the figures are divided by later.
    #[must_use]
    pub fn sample(&self, completed: u64) -> Sample {
        let machine = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_machine(&text));
        let server = |read: &dyn Fn(u32) -> Option<u64>| -> Option<u64> {
            if self.servers.is_empty() {
                return None;
            }
            self.servers.iter().map(|server| read(server.pid)).sum()
        };
        Sample {
            completed,
            server_cpu_us: server(&|pid| Some(parse_cpu_ticks(&read(pid, "stat")?)? * self.tick_us)),
            server_written_bytes: server(&|pid| field(&read(pid, "io")?, "write_bytes:")),
            server_rss_bytes: server(&|pid| Some(field(&read(pid, "status")?, "VmRSS:")? * 1024)),
            server_rss_peak_bytes: server(&|pid| Some(field(&read(pid, "status")?, "VmHWM:")? * 1024)),
            generator_cpu_us: generator_cpu_us(),
            machine_cpu_us: machine.map(|(busy, _)| busy * self.tick_us),
            machine_steal_us: machine.map(|(_, steal)| steal * self.tick_us),
            device: self.device(),
        }
    }

    fn device(&self) -> Option<DeviceCounters> {
        if self.devices.is_empty() {
            return None;
        }
        let mut sum = DeviceCounters::default();
        for device in &self.devices {
            let counters = parse_device(&fs::read_to_string(format!("{}/stat", device.sysfs())).ok()?)?;
            sum.writes += counters.writes;
            sum.written_bytes += counters.written_bytes;
            sum.flushes += counters.flushes;
        }
        Some(sum)
    }
}

fn read(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// CPU time of this process: the generator, as the servers are processes of their own.
fn generator_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// User and system time of a process; its name may contain anything, so fields count from the last parenthesis.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Busy and stolen ticks of the line `cpu user nice system idle iowait irq softirq steal ...`.
fn parse_machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks.as_slice() else { return None };
    Some((user + nice + system + irq + softirq, *steal))
}

/// Fields 5, 7 and 16 of `Documentation/block/stat.rst`: writes, sectors of 512 bytes, flushes.
fn parse_device(stat: &str) -> Option<DeviceCounters> {
    let fields: Vec<u64> = stat.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(DeviceCounters {
        writes: *fields.get(4)?,
        written_bytes: fields.get(6)? * 512,
        flushes: fields.get(15).copied().unwrap_or(0),
    })
}

/// The block devices that hold regular files a process has open.
fn devices_of(pid: u32) -> BTreeSet<DeviceNumber> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    folder
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| DeviceNumber::of(metadata.st_dev()))
        .filter(|device| Path::new(&device.sysfs()).exists())
        .collect()
}

/// The local processes that listen at these addresses, in order of the addresses, each once.
#[must_use]
pub fn listening_processes(addresses: &[SocketAddr]) -> Vec<ServerProcess> {
    let inodes = listening_inodes();
    let owners = socket_owners();
    let mut found: Vec<ServerProcess> = Vec::new();
    for address in addresses.iter().filter(|address| address.ip().is_loopback()) {
        let pids = inodes.get(&address.port()).into_iter().flatten().filter_map(|inode| owners.get(inode));
        for &pid in pids {
            if !found.iter().any(|server| server.pid == pid) {
                found.push(ServerProcess { pid, node: found.len() as u64 + 1 });
            }
        }
    }
    found
}

/// Inodes of listening sockets by port.
fn listening_inodes() -> BTreeMap<u16, Vec<u64>> {
    let mut inodes: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(file).unwrap_or_default().lines().skip(1) {
            if let Some((port, inode)) = parse_listener(line) {
                inodes.entry(port).or_default().push(inode);
            }
        }
    }
    inodes
}

/// Port and inode of a line of `/proc/net/tcp` if it is a listener (state 0A).
fn parse_listener(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != "0A" {
        return None;
    }
    let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    Some((port, inode.parse().ok()?))
}

/// Processes by the inodes of their sockets, as far as this user may look.
fn socket_owners() -> BTreeMap<u64, u32> {
    let mut owners = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return owners };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, pid);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn parses_what_the_kernel_writes() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 7 0";
        assert_eq!(parse_cpu_ticks(stat), Some(333));
        assert_eq!(parse_machine("cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 1 1 1"), Some((19, 8)));
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\n", "write_bytes:"), Some(4096));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        let device = "1 2 3 4 50 6 700 8 9 10 11 12 13 14 15 16 17";
        let expected = DeviceCounters { writes: 50, written_bytes: 700 * 512, flushes: 16 };
        assert_eq!(parse_device(device), Some(expected));
        let line = "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0 100 0 0 10 0";
        assert_eq!(parse_listener(line), Some((8080, 4711)));
        assert_eq!(parse_cpu_ticks("nonsense"), None);
        assert_eq!(parse_device(""), None);
    }

    #[test]
    fn finds_the_process_that_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listening_processes(&[listener.local_addr().unwrap()]);
        assert_eq!(found, [ServerProcess { pid: std::process::id(), node: 1 }]);
    }

    #[test]
    fn samples_this_process() {
        let sampler = Sampler::new(&[ServerProcess { pid: std::process::id(), node: 1 }]);
        let sample = sampler.sample(5);
        assert!(sample.server_rss_bytes.unwrap() > 100_000);
        assert!(sample.server_cpu_us.is_some());
        assert!(Sampler::new(&[]).sample(0).server_cpu_us.is_none());
        let gone = Sampler::new(&[ServerProcess { pid: u32::MAX, node: 1 }]);
        assert!(gone.sample(0).server_cpu_us.is_none());
    }
}
