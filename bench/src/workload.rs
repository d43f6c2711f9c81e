//! What is asked: a seeded stream of puts and gets, or of deletes, over fixed-size keys.
//!
//! Off the data path.
//!
//! Invariants: the same seed gives the same stream; no allocation per operation; value bytes are random
//! (incompressible) and begin with a mark of their key, so that a value read can be told from a wrong one.
//!
//! ```text
//! key    k e y - 0 0 0 0 0 0 0 4 2 1 7      16 bytes
//! value  | mark of the key, 8 | random bytes from a seeded pool at a random offset |
//! ```

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rand_distr::{Distribution as _, Zipf};

/// Bytes of a key: `key-` and twelve digits.
pub const KEY_BYTES: usize = 16;

/// Largest number of keys: what twelve digits can name.
pub const KEYS_MAX: u64 = 1_000_000_000_000;

/// Exponent of the zipfian distribution (YCSB's).
pub const ZIPF_EXPONENT: f64 = 0.99;

const POOL_BYTES: usize = 256 * 1024;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyDistribution {
    /// Every key equally often.
    Uniform,
    /// A few keys very often (exponent 0.99), scattered over the key space.
    Zipfian,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Writes a value.
    Put,
    /// Reads a value, linearizable.
    Get,
    /// Removes a key that exists.
    Delete,
}

impl OperationKind {
    /// All kinds with their names in reports.
    pub const NAMED: [(Self, &'static str); 3] = [(Self::Put, "put"), (Self::Get, "get"), (Self::Delete, "delete")];
}

/// One operation, borrowed from the workload's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What it does.
    pub kind: OperationKind,
    /// The key.
    pub key: &'a [u8; KEY_BYTES],
    /// The value of a put; else empty.
    pub value: &'a [u8],
}

/// What a workload is made of.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadOptions {
    /// Number of distinct keys, `1..=KEYS_MAX`.
    pub keys: u64,
    /// How they are chosen.
    pub distribution: KeyDistribution,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Share of gets, 0 to 100.
    pub read_percent: u8,
    /// Instead of puts and gets: deletes of keys that exist. Each key is deleted once, in scattered order; when none is
    /// left, all are written again in the same order, and so on.
    pub deletes: bool,
    /// Seed of everything random.
    pub seed: u64,
}

/// The stream: [`Workload::advance`] makes the next operation, [`Workload::current`] shows it until then.
pub struct Workload {
    options: WorkloadOptions,
    random: SmallRng,
    zipf: Option<Zipf<f64>>,
    pool: Vec<u8>,
    key: [u8; KEY_BYTES],
    key_number: u64,
    kind: OperationKind,
    value_offset: usize,
    /// Operations made so far, where keys are taken in turn.
    turn: u64,
    /// Step between two keys taken in turn: coprime to their number.
    stride: u64,
}

impl Workload {
    /// A stream from its beginning; options out of range are a programming error (the arguments are checked before).
    #[must_use]
    pub fn new(options: WorkloadOptions) -> Self {
        assert!((1..=KEYS_MAX).contains(&options.keys), "keys out of range");
        assert!(options.read_percent <= 100, "read share out of range");
        let mut random = SmallRng::seed_from_u64(options.seed);
        let mut pool = vec![0; POOL_BYTES + options.value_bytes];
        random.fill_bytes(&mut pool);
        let zipf = match options.distribution {
            KeyDistribution::Uniform => None,
            KeyDistribution::Zipfian => Zipf::new(options.keys as f64, ZIPF_EXPONENT).ok(),
        };
        let key = *b"key-000000000000";
        let stride = stride_over(options.keys);
        let kind = OperationKind::Put;
        Self { options, random, zipf, pool, key, key_number: 0, kind, value_offset: 0, turn: 0, stride }
    }

    /// Makes the next operation of the stream.
    pub fn advance(&mut self) {
        let bits = self.random.next_u64();
        if self.options.deletes {
            let (round, place) = (self.turn / self.options.keys, self.turn % self.options.keys);
            let kind = if round.is_multiple_of(2) { OperationKind::Delete } else { OperationKind::Put };
            self.turn += 1;
            return self.set(kind, scattered(place, self.stride, self.options.keys), bits);
        }
        let share = ((bits >> 32) * 100) >> 32;
        let kind = if share < u64::from(self.options.read_percent) { OperationKind::Get } else { OperationKind::Put };
        let key_number = match &self.zipf {
            None => scale(self.random.next_u64(), self.options.keys),
            // Ranks are scattered as in YCSB, so that neighbours in rank are no neighbours in key.
            Some(zipf) => scale(mix(zipf.sample(&mut self.random) as u64), self.options.keys),
        };
        self.set(kind, key_number, bits);
    }

    /// Makes a put of the key with this number, for preloading.
    pub fn put_of(&mut self, key_number: u64) {
        let bits = self.random.next_u64();
        self.set(OperationKind::Put, key_number, bits);
    }

    fn set(&mut self, kind: OperationKind, key_number: u64, bits: u64) {
        self.kind = kind;
        self.key_number = key_number;
        write_digits(&mut self.key, key_number);
        if kind == OperationKind::Put {
            self.value_offset = bits as usize % POOL_BYTES;
            let value = &mut self.pool[self.value_offset..][..self.options.value_bytes];
            let bytes = value.len().min(8);
            value[..bytes].copy_from_slice(&mix(key_number).to_le_bytes()[..bytes]);
        }
    }

    /// The operation made last.
    #[must_use]
    pub fn current(&self) -> Operation<'_> {
        let value = match self.kind {
            OperationKind::Put => &self.pool[self.value_offset..][..self.options.value_bytes],
            OperationKind::Get | OperationKind::Delete => &[],
        };
        Operation { kind: self.kind, key: &self.key, value }
    }

    /// The mark which a value of the operation's key begins with, as [`mark_of`] finds it in a value read.
    #[must_use]
    pub fn current_mark(&self) -> u64 {
        match self.options.value_bytes {
            0 => 0,
            bytes @ 1..8 => mix(self.key_number) & ((1 << (8 * bytes)) - 1),
            _ => mix(self.key_number),
        }
    }

    /// What the stream is made of.
    #[must_use]
    pub fn options(&self) -> &WorkloadOptions {
        &self.options
    }
}

/// The mark at the beginning of a value: its first eight bytes, little endian, zeros for those it does not have.
#[must_use]
pub fn mark_of(value: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let count = value.len().min(8);
    bytes[..count].copy_from_slice(&value[..count]);
    u64::from_le_bytes(bytes)
}

/// A step that meets every one of `keys` keys before any of them twice.
fn stride_over(keys: u64) -> u64 {
    // About the golden ratio: neighbours in turn are far apart.
    let mut stride = (keys as f64 * 0.618) as u64 | 1;
    while common_divisor(stride, keys) != 1 {
        stride += 2;
    }
    stride
}

fn common_divisor(mut first: u64, mut second: u64) -> u64 {
    while second != 0 {
        (first, second) = (second, first % second);
    }
    first
}

fn scattered(place: u64, stride: u64, keys: u64) -> u64 {
    (u128::from(place) * u128::from(stride) % u128::from(keys)) as u64
}

/// Maps 64 random bits to `0..bound` without a division.
fn scale(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// The finalizer of splitmix64: a fixed bijection of 64 bits.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn write_digits(key: &mut [u8; KEY_BYTES], mut number: u64) {
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn options(distribution: KeyDistribution) -> WorkloadOptions {
        WorkloadOptions { keys: 1_000, distribution, value_bytes: 128, read_percent: 30, deletes: false, seed: 7 }
    }

    fn stream(options: WorkloadOptions, count: usize) -> Vec<(bool, Vec<u8>, Vec<u8>)> {
        let mut workload = Workload::new(options);
        (0..count)
            .map(|_| {
                workload.advance();
                let operation = workload.current();
                (operation.kind == OperationKind::Put, operation.key.to_vec(), operation.value.to_vec())
            })
            .collect()
    }

    #[test]
    fn the_seed_decides_everything() {
        for distribution in [KeyDistribution::Uniform, KeyDistribution::Zipfian] {
            let first = stream(options(distribution), 500);
            assert_eq!(first, stream(options(distribution), 500));
            assert_ne!(first, stream(WorkloadOptions { seed: 8, ..options(distribution) }, 500));
        }
    }

    #[test]
    fn shares_and_spread_are_as_asked() {
        let uniform = stream(options(KeyDistribution::Uniform), 100_000);
        let puts = uniform.iter().filter(|(put, ..)| *put).count();
        assert!((69_000..71_000).contains(&puts), "{puts} puts");
        assert!(top_share(&uniform, 10) < 0.02);
        assert!(top_share(&stream(options(KeyDistribution::Zipfian), 100_000), 10) > 0.3);
    }

    fn top_share(stream: &[(bool, Vec<u8>, Vec<u8>)], top: usize) -> f64 {
        let mut counts: HashMap<&[u8], usize> = HashMap::new();
        for (_, key, _) in stream {
            *counts.entry(key).or_default() += 1;
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.iter().take(top).sum::<usize>() as f64 / stream.len() as f64
    }

    #[test]
    fn every_key_is_deleted_once_then_written_again() {
        for keys in [1_u64, 2, 10, 997, 1_000] {
            let options = WorkloadOptions { keys, deletes: true, ..options(KeyDistribution::Uniform) };
            let mut workload = Workload::new(options);
            for kind in [OperationKind::Delete, OperationKind::Put, OperationKind::Delete] {
                let mut seen = std::collections::HashSet::new();
                for _ in 0..keys {
                    workload.advance();
                    assert_eq!(workload.current().kind, kind);
                    assert_eq!(workload.current().value.is_empty(), kind == OperationKind::Delete);
                    assert!(seen.insert(workload.current().key.to_vec()), "{keys} keys");
                }
            }
        }
    }

    #[test]
    fn keys_are_fixed_size_and_values_carry_their_mark() {
        for value_bytes in [0, 1, 7, 8, 128, 5_000] {
            let mut workload = Workload::new(WorkloadOptions { value_bytes, ..options(KeyDistribution::Uniform) });
            for number in [0, 1, 999_999_999_999] {
                workload.put_of(number);
                let operation = workload.current();
                assert_eq!(operation.key.as_slice(), format!("key-{number:012}").as_bytes());
                assert_eq!(operation.value.len(), value_bytes);
                assert_eq!(mark_of(operation.value), workload.current_mark());
            }
        }
    }
}
