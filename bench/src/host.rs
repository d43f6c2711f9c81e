//! Facts about the machine which figures are worth nothing without: kernel, processors, file system, disk.
//!
//! Off the data path: read once per report.

use std::collections::BTreeSet;
use std::fs;

use serde::Serialize;

use crate::system::DeviceNumber;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostFacts {
    /// Its name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Logical processors this process may use.
    pub processors: usize,
    /// Main memory.
    pub memory_bytes: u64,
    /// The disks below the servers' files; empty when servers are remote.
    pub disks: Vec<DiskFacts>,
}

/// A disk below the servers' files.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DiskFacts {
    /// Name of the block device.
    pub device: String,
    /// File system on it.
    pub filesystem: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// Model, where the device tells.
    pub model: Option<String>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// `write back` (flushes matter) or `write through`.
    pub write_cache: Option<String>,
    /// Whether a single write can be made durable without a flush.
    pub force_unit_access: Option<bool>,
}

/// Reads the facts.
#[must_use]
pub fn facts(devices: &BTreeSet<DeviceNumber>) -> HostFacts {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    HostFacts {
        hostname: text("/proc/sys/kernel/hostname").unwrap_or_default(),
        kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        processor: processor.trim_start_matches(['\t', ' ', ':']).to_owned(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: kilobytes.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0) * 1024,
        disks: devices.iter().map(|device| disk(*device)).collect(),
    }
}

fn disk(device: DeviceNumber) -> DiskFacts {
    let folder = fs::canonicalize(device.sysfs()).unwrap_or_default();
    // A partition has no queue of its own; its parent has.
    let whole = match folder.parent() {
        Some(parent) if !folder.join("queue").exists() => parent.to_path_buf(),
        _ => folder.clone(),
    };
    let attribute = |name: &str| text(&whole.join(name).to_string_lossy());
    let (filesystem, mount_point) = mount(device).unwrap_or_default();
    DiskFacts {
        device: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        filesystem,
        mount_point,
        model: attribute("device/model"),
        rotational: attribute("queue/rotational").map(|value| value == "1"),
        write_cache: attribute("queue/write_cache"),
        force_unit_access: attribute("queue/fua").map(|value| value == "1"),
    }
}

/// File system and mount point of a device.
fn mount(device: DeviceNumber) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let number = format!("{}:{}", device.major, device.minor);
    table.lines().find_map(|line| parse_mount(line, &number))
}

/// `id parent M:m root mount_point options ... - filesystem source options`
fn parse_mount(line: &str, number: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    if fields.next()? != number {
        return None;
    }
    let mount_point = fields.nth(1)?;
    Some((right.split(' ').next()?.to_owned(), mount_point.to_owned()))
}

fn text(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_mount() {
        let line = "22 1 254:0 / /data rw,relatime shared:1 - ext4 /dev/vda rw";
        assert_eq!(parse_mount(line, "254:0"), Some(("ext4".to_owned(), "/data".to_owned())));
        assert_eq!(parse_mount(line, "254:1"), None);
    }

    #[test]
    fn knows_this_machine() {
        let facts = facts(&BTreeSet::new());
        assert!(!facts.kernel.is_empty());
        assert!(facts.processors > 0 && facts.memory_bytes > 0);
    }
}
