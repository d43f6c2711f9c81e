//! Configuration of one core: every knob with its unit, default and bounds, declared once.
//!
//! Off the data path.
//!
//! Relations: `2 * heartbeat_ticks <= election_ticks_min`, `1.5 * election_ticks_min <= election_ticks_max`;
//! `append_bytes_max <= inflight_bytes_max`.
//!
//! Deliberately absent: switches for pre-vote and check-quorum,
//! which are always on.

use crate::ids::NodeId;
use core::{fmt, ops::Deref};

/// Configuration as the host wrote it down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node this core runs on.
    pub id: NodeId,
    /// Shortest election timeout; also how long a heard leader shields against votes. At least `2 * heartbeat_ticks`.
    pub election_ticks_min: u32,
    /// Election timeouts are drawn from `election_ticks_min..election_ticks_max`; also how long a leader stays one
    /// without hearing a majority. Above `election_ticks_min`.
    pub election_ticks_max: u32,
    /// Ticks between two heartbeats of a leader. At least 1.
    pub heartbeat_ticks: u32,
    /// Most bytes of records one `AppendEntries` names, one entry excepted. At least 1.
    pub append_bytes_max: u32,
    /// Most bytes of records on the way to one follower, one entry excepted. At least `append_bytes_max`.
    pub inflight_bytes_max: u64,
    /// A member that lacks committed entries, more than one message takes, gets so many bytes of them per tick at least while
    /// others are committed without it; 0: as many as it takes.
    pub catch_up_bytes_per_tick: u64,
    /// Most bytes of records proposed and not committed, one entry excepted. At least 1.
    pub uncommitted_bytes_max: u64,
    /// Length of a tick: ticks come no faster. 0: not told, then nothing is promised to leaders that hold leases.
    pub tick_us: u64,
    /// Clocks of two nodes differ in rate by so much at most: leases are shorter by it. 100: no leases. At most 100.
    pub lease_drift_percent: u32,
    /// Seed of the election jitter. Mixed with `id`, so nodes may share one.
    pub seed: u64,
}

/// Fewest different election timeouts.
const ELECTION_SPREAD_MIN: u32 = 4;

impl Config {
    /// The defaults. They suit a tick of 10 ms: elections after 0.5 to 1 s of silence, heartbeats every 50 ms.
    #[must_use]
    pub const fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            election_ticks_min: 50,
            election_ticks_max: 100,
            heartbeat_ticks: 5,
            append_bytes_max: 1 << 20,
            inflight_bytes_max: 8 << 20,
            catch_up_bytes_per_tick: 0,
            uncommitted_bytes_max: 64 << 20,
            tick_us: 0,
            lease_drift_percent: 100,
            seed,
        }
    }

    /// Checks the bounds; only the result can make a core.
    pub fn validate(self) -> Result<ValidConfig, ConfigError> {
        if self.heartbeat_ticks == 0 {
            return Err(ConfigError::HeartbeatTicksZero);
        }
        if self.election_ticks_min < self.heartbeat_ticks.saturating_mul(2) {
            return Err(ConfigError::ElectionTicksMinTooSmall);
        }
        let spread = (self.election_ticks_min / 2).max(ELECTION_SPREAD_MIN);
        if self.election_ticks_max < self.election_ticks_min.saturating_add(spread) {
            return Err(ConfigError::ElectionTicksMaxTooSmall);
        }
        if self.append_bytes_max == 0 {
            return Err(ConfigError::AppendBytesMaxZero);
        }
        if self.inflight_bytes_max < u64::from(self.append_bytes_max) {
            return Err(ConfigError::InflightBytesMaxTooSmall);
        }
        if self.uncommitted_bytes_max == 0 {
            return Err(ConfigError::UncommittedBytesMaxZero);
        }
        if self.lease_drift_percent > 100 {
            return Err(ConfigError::LeaseDriftPercentTooLarge);
        }
        Ok(ValidConfig(self))
    }
}

/// A configuration within its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValidConfig(Config);

impl Deref for ValidConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}

/// Why a configuration was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// `heartbeat_ticks` is 0.
    HeartbeatTicksZero,
    /// `election_ticks_min` is below twice `heartbeat_ticks`.
    ElectionTicksMinTooSmall,
    /// `election_ticks_max` is not half as much again as `election_ticks_min`, and at least 4 more: with hardly any jitter
    /// two candidates take each other's votes for ever (Raft 9.3).
    ElectionTicksMaxTooSmall,
    /// `append_bytes_max` is 0.
    AppendBytesMaxZero,
    /// `inflight_bytes_max` is below `append_bytes_max`.
    InflightBytesMaxTooSmall,
    /// `uncommitted_bytes_max` is 0.
    UncommittedBytesMaxZero,
    /// `lease_drift_percent` is above 100.
    LeaseDriftPercentTooLarge,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HeartbeatTicksZero => "heartbeat_ticks must be at least 1",
            Self::ElectionTicksMinTooSmall => "election_ticks_min must be at least twice heartbeat_ticks",
            Self::ElectionTicksMaxTooSmall => "election_ticks_max must be at least 1.5 times election_ticks_min and 4 more, else candidates split the votes",
            Self::AppendBytesMaxZero => "append_bytes_max must be at least 1",
            Self::InflightBytesMaxTooSmall => "inflight_bytes_max must be at least append_bytes_max",
            Self::UncommittedBytesMaxZero => "uncommitted_bytes_max must be at least 1",
            Self::LeaseDriftPercentTooLarge => "lease_drift_percent must be at most 100",
        })
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_every_bound_is_checked() {
        let good = Config::new(NodeId(1), 7);
        assert_eq!(*good.validate().unwrap(), good);
        let cases = [
            (Config { heartbeat_ticks: 0, ..good }, ConfigError::HeartbeatTicksZero),
            (Config { election_ticks_min: 9, ..good }, ConfigError::ElectionTicksMinTooSmall),
            (Config { election_ticks_max: 74, ..good }, ConfigError::ElectionTicksMaxTooSmall),
            (Config { append_bytes_max: 0, ..good }, ConfigError::AppendBytesMaxZero),
            (Config { inflight_bytes_max: 1, ..good }, ConfigError::InflightBytesMaxTooSmall),
            (Config { uncommitted_bytes_max: 0, ..good }, ConfigError::UncommittedBytesMaxZero),
            (Config { lease_drift_percent: 101, ..good }, ConfigError::LeaseDriftPercentTooLarge),
        ];
        for (config, error) in cases {
            assert_eq!(config.validate(), Err(error));
        }
    }
}
