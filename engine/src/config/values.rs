//! Values of settings: from text and back.
//!
//! Off the data path.
//! Invariant: what `show` writes `read` reads as the same value.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringraft_raft::NodeId;

/// A setting that is not a plain number.
pub(super) trait SettingText: Sized {
    /// Reads the value; the error says what is wrong with the text.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes the value.
    fn show(&self) -> String;
}

/// Reads a number within bounds; underscores and the suffixes KiB, MiB and GiB are understood.
pub(super) fn number(text: &str, low: u64, high: u64, unit: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (digits, suffix) = text.split_at(digits);
    let factor = match suffix.trim() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(String::from("it is not a whole number, optionally with KiB, MiB or GiB")),
    };
    let value: u64 = digits.replace('_', "").parse().map_err(|_| String::from("it is not a whole number"))?;
    let value = value.checked_mul(factor).ok_or_else(|| String::from("it does not fit in 64 bits"))?;
    within(value, low, high, unit)?;
    Ok(value)
}

/// Checks a number against its bounds.
pub(super) fn within(value: u64, low: u64, high: u64, unit: &str) -> Result<(), String> {
    match value {
        value if value < low => Err(format!("it is below {low} ({unit})")),
        value if value > high => Err(format!("it is above {high} ({unit})")),
        _ => Ok(()),
    }
}

/// The id in `7`, `n7`, `node7`, `node-7` or `node_7`.
pub(super) fn node_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let named = ["node-", "node_", "node", "n"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let digits = named.unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The 16 bytes every node of a cluster shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl std::fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl SettingText for ClusterId {
    fn read(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 16];
        if text.is_empty() {
            return Ok(Self(bytes));
        }
        let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
        match digits {
            Some(digits) if digits.len() == 32 => {
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = pair[0] << 4 | pair[1];
                }
                Ok(Self(bytes))
            }
            _ => Err(String::from("it is not 32 hexadecimal digits")),
        }
    }

    fn show(&self) -> String {
        if *self == Self::default() { String::new() } else { self.to_string() }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    /// The port of shard 0; shard `s` has `port + s`.
    pub port: u16,
}

impl Address {
    /// The address of a shard.
    #[must_use]
    pub fn of_shard(&self, shard: u16) -> String {
        format!("{}:{}", self.host, u32::from(self.port) + u32::from(shard))
    }

    /// The address a text names.
    ///
    /// # Errors
    /// When it is not `host:port`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not host:port");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(problem)?;
        let port: u16 = port.parse().map_err(|_| problem())?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || port == 0 || (host.contains(':') && !bracketed) {
            return Err(problem());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl SettingText for Option<Address> {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { Address::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, |address| address.of_shard(0))
    }
}

/// The nodes of the cluster, this one included, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub BTreeMap<u64, Address>);

impl Peers {
    /// The nodes' ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.keys().copied().map(NodeId)
    }

    /// The ids as text.
    pub(super) fn ids(&self) -> String {
        let ids: Vec<String> = self.0.keys().map(u64::to_string).collect();
        ids.join(",")
    }
}

impl SettingText for Peers {
    fn read(text: &str) -> Result<Self, String> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (id, address) = part.split_once('=').ok_or_else(|| format!("`{part}` is not id=host:port"))?;
            let id = node_number(id).ok_or_else(|| format!("`{id}` is not a node id"))?;
            if id == 0 {
                return Err(String::from("node ids start at 1"));
            }
            if peers.insert(id, Address::read(address)?).is_some() {
                return Err(format!("node {id} is named twice"));
            }
        }
        Ok(Self(peers))
    }

    fn show(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|(id, address)| format!("{id}={}", address.of_shard(0))).collect();
        parts.join(",")
    }
}

/// How a batch is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlushMethod {
    /// Whichever is faster at start.
    #[default]
    Auto,
    /// A write, then fdatasync.
    Fdatasync,
    /// One `O_DSYNC` write.
    Dsync,
}

impl SettingText for FlushMethod {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fdatasync" => Ok(Self::Fdatasync),
            "dsync" => Ok(Self::Dsync),
            _ => Err(String::from("there is no such method")),
        }
    }

    fn show(&self) -> String {
        String::from(match self {
            Self::Auto => "auto",
            Self::Fdatasync => "fdatasync",
            Self::Dsync => "dsync",
        })
    }
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Switch {
    /// It is not.
    #[default]
    Off,
    /// It is.
    On,
}

impl SettingText for Switch {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" | "false" => Ok(Self::Off),
            "on" | "true" => Ok(Self::On),
            _ => Err(String::from("it is neither `on` nor `off`")),
        }
    }

    fn show(&self) -> String {
        String::from(if *self == Self::On { "on" } else { "off" })
    }
}

/// The core of each shard; empty: the kernel chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(pub Vec<u16>);

impl SettingText for Cpus {
    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let cpus: Result<Vec<u16>, _> = text.split(',').map(|cpu| cpu.trim().parse()).collect();
        cpus.map(Self).map_err(|_| String::from("it is neither `none` nor a list of core numbers"))
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return String::from("none");
        }
        let cpus: Vec<String> = self.0.iter().map(u16::to_string).collect();
        cpus.join(",")
    }
}

impl SettingText for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl SettingText for Option<PathBuf> {
    fn read(text: &str) -> Result<Self, String> {
        Ok(if text.is_empty() { None } else { Some(PathBuf::from(text)) })
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}

/// A collector of spans: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(pub Address);

impl SettingText for Collector {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("https://") {
            return Err(String::from(
                "TLS is not spoken to it: name a collector near by, which may pass spans on by TLS",
            ));
        }
        let plain = text.strip_prefix("http://").unwrap_or(text);
        let address = Address::read(plain.strip_suffix('/').unwrap_or(plain))?;
        if address.host.chars().any(|character| character.is_whitespace() || "/@?#".contains(character)) {
            return Err(format!("`{}` is no host", address.host));
        }
        Ok(Self(address))
    }

    fn show(&self) -> String {
        self.0.of_shard(0)
    }
}

/// A name in traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(pub String);

impl SettingText for ServiceName {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.chars().count() {
            1..=255 if !text.contains(char::is_control) => Ok(Self(text.to_owned())),
            1..=255 => Err(String::from("it has control characters")),
            count => Err(format!("it has {count} characters")),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Of a million.
    pub millionths: u32,
}

impl Ratio {
    /// As a fraction of 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

impl SettingText for Ratio {
    fn read(text: &str) -> Result<Self, String> {
        let value: f64 = text.trim().parse().map_err(|_| String::from("it is not a number"))?;
        if !(0.0..=1.0).contains(&value) {
            return Err(String::from("it is not between 0 and 1"));
        }
        let millionths = (value * 1e6).round() as u32;
        if millionths == 0 && value > 0.0 {
            return Err(String::from("it is below 0.000001; 0 is none at all"));
        }
        Ok(Self { millionths })
    }

    fn show(&self) -> String {
        self.fraction().to_string()
    }
}

/// How much is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl SettingText for LogLevel {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" | "error" | "warn" | "info" | "debug" | "trace" => Ok(Self(text.to_owned())),
            _ => Err(String::from("there is no such level")),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: SettingText + PartialEq + std::fmt::Debug>(text: &str) {
        let value = T::read(text).unwrap();
        assert_eq!(value.show(), text);
        assert_eq!(T::read(&value.show()).unwrap(), value);
    }

    #[test]
    fn texts_survive_reading_and_showing() {
        round_trip::<ClusterId>("00112233445566778899aabbccddeeff");
        round_trip::<ClusterId>("");
        round_trip::<Peers>("1=127.0.0.1:7000,2=[::1]:7100,9=host.example:7200");
        round_trip::<Option<Address>>("0.0.0.0:7000");
        round_trip::<Option<Address>>("");
        round_trip::<Cpus>("none");
        round_trip::<Cpus>("0,2,5");
        round_trip::<FlushMethod>("auto");
        round_trip::<FlushMethod>("dsync");
        round_trip::<FlushMethod>("fdatasync");
        round_trip::<LogLevel>("debug");
        round_trip::<Collector>("[::1]:4317");
        round_trip::<ServiceName>("key value store");
        ["0", "0.25", "0.000001", "0.333333", "1"].into_iter().for_each(round_trip::<Ratio>);
        round_trip::<Option<PathBuf>>("/var/lib/ringraft/wal");
    }

    #[test]
    fn malformed_texts_are_refused_with_the_reason() {
        for text in
            ["1", "1=host", "1=host:0", "1=:7000", "1=host:70000", "x=host:1", "0=h:1", "1=h:1,1=h:2", "1=::1:7"]
        {
            assert!(Peers::read(text).is_err(), "{text}");
        }
        assert!(ClusterId::read("0011").is_err());
        assert!(ClusterId::read(&"g".repeat(32)).is_err());
        assert!(Cpus::read("0,x").is_err());
        assert!(FlushMethod::read("fsync").is_err());
        assert!(LogLevel::read("verbose").is_err());
        for text in
            ["", "host", "http://", "https://host:4317", "http://host:4317/v1", "http://a@host:1", "a b:1", "ftp://h:1"]
        {
            assert!(Collector::read(text).is_err(), "{text}");
        }
        for text in ["", " ", "a\tb", &"x".repeat(256)] {
            assert!(ServiceName::read(text).is_err(), "{text:?}");
        }
        for text in ["", "-0.1", "1.000001", "NaN", "inf", "half", "50%", "0.0000001"] {
            assert!(Ratio::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_collector_may_be_named_as_a_url_and_a_ratio_as_any_number() {
        for text in ["http://jaeger:4317", "http://jaeger:4317/", " jaeger:4317 "] {
            assert_eq!(Collector::read(text).map(|collector| collector.show()).as_deref(), Ok("jaeger:4317"));
        }
        for (text, millionths) in [("1.0", 1_000_000), ("0.50", 500_000), ("1e-3", 1_000), ("0", 0)] {
            assert_eq!(Ratio::read(text), Ok(Ratio { millionths }), "{text}");
        }
    }

    #[test]
    fn node_ids_may_have_names_that_end_in_them() {
        for text in ["7", "n7", "node7", "node-7", "node_7", " 7 "] {
            assert_eq!(node_number(text), Some(7), "{text}");
        }
        for text in ["", "n", "+7", "-7", "seven", "7n", "node--7", "n1.0", "99999999999999999999"] {
            assert_eq!(node_number(text), None, "{text}");
        }
        assert_eq!(Peers::read("n1=a:1,node-2=b:2").unwrap(), Peers::read("1=a:1,2=b:2").unwrap());
        assert!(Peers::read("n1=a:1,node1=b:2").is_err());
    }

    #[test]
    fn numbers_have_bounds_and_suffixes() {
        assert_eq!(number("64MiB", 0, u64::MAX, "bytes"), Ok(64 << 20));
        assert_eq!(number(" 4 KiB ", 0, u64::MAX, "bytes"), Ok(4096));
        assert_eq!(number("1_000", 1, 1000, "x"), Ok(1000));
        for text in ["", "-1", "1.5", "12q", "99999999999999999999", "18446744073709551615KiB", "MiB"] {
            assert!(number(text, 0, u64::MAX, "x").is_err(), "{text}");
        }
        assert_eq!(number("0", 1, 9, "ticks"), Err(String::from("it is below 1 (ticks)")));
        assert_eq!(number("10", 1, 9, "ticks"), Err(String::from("it is above 9 (ticks)")));
    }

    #[test]
    fn each_shard_has_the_next_port() {
        let address = Address::read("[::1]:7000").unwrap();
        assert_eq!(address.of_shard(3), "[::1]:7003");
    }
}
