//! A network of our own: a namespace for each node and one for the clients, joined by a bridge in a namespace of its own.
//!
//! Off the data path.
//! Invariants: a cut drops packets and tells nobody, as a broken link does; cuts have a direction; names carry the process
//! id, so that runs do not collide, and namespaces of processes that are gone are removed by the next run; dropping the
//! network removes it.
//!
//! ```text
//!   namespace K            hub                       namespace clients
//!   eth0 10.77.0.K ═══ portK ─ bridge ─ port100 ═══ eth0 10.77.0.100
//!   nft: packets from those it must not hear are dropped on their way in
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

use super::program;
use crate::local_cluster::Host;
use crate::namespace;

const PREFIX: &str = "ringraft-chaos-";
const CLIENTS_HOST: u64 = 100;
const TABLE: &str = "ringraft_chaos";

/// Networks made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Who is attached to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A node, by id.
    Node(u64),
    /// All clients, and the one who runs the scenario.
    Clients,
}

impl Member {
    fn host(self) -> u64 {
        match self {
            Self::Node(id) => id,
            Self::Clients => CLIENTS_HOST,
        }
    }

    fn address(self) -> String {
        format!("10.77.0.{}", self.host())
    }
}

/// The namespaces of one run.
#[derive(Debug)]
pub struct Network {
    name: String,
    nodes: u64,
    /// (from, to): packets of the first never reach the second.
    cuts: BTreeSet<(Member, Member)>,
    dropped: u64,
}

impl Network {
    /// Makes the namespaces, links and the bridge.
    ///
    /// # Errors
    /// When the rights or a program are missing; what was made is removed again.
    pub fn create(nodes: u64) -> Result<Self> {
        ensure!(nodes < CLIENTS_HOST, "at most {} nodes", CLIENTS_HOST - 1);
        remove_stale();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let network = Self { name, nodes, cuts: BTreeSet::new(), dropped: 0 };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let hub = format!("{}-hub", self.name);
        ip(&["netns", "add", &hub])?;
        let mut in_hub = String::from("link add bridge type bridge\nlink set bridge up\n");
        for member in self.members() {
            let (namespace, host, address) = (self.namespace(member), member.host(), member.address());
            ip(&["netns", "add", &namespace])?;
            in_hub.push_str(&format!(
                "link add port{host} type veth peer name eth0 netns {namespace}\nlink set port{host} master bridge up\n"
            ));
            ip_batch(&hub, &in_hub)?;
            in_hub.clear();
            ip_batch(&namespace, &format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = Member> + use<> {
        (1..=self.nodes).map(Member::Node).chain([Member::Clients])
    }

    /// The namespace of a member.
    #[must_use]
    pub fn namespace(&self, member: Member) -> String {
        match member {
            Member::Node(id) => format!("{}-{id}", self.name),
            Member::Clients => format!("{}-clients", self.name),
        }
    }

    /// Where the nodes run.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let host = |member: Member| Host { namespace: self.namespace(member), address: member.address() };
        (1..=self.nodes).map(Member::Node).map(host).collect()
    }

    /// Drops packets from one member to another; the way back stays open.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn cut(&mut self, from: Member, to: Member) -> Result<()> {
        self.set(|cuts| {
            cuts.insert((from, to));
        })
    }

    /// Drops packets between all of one side and all of the other.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn split(&mut self, one: &[Member], other: &[Member]) -> Result<()> {
        self.set(|cuts| {
            for left in one {
                for right in other {
                    cuts.extend([(*left, *right), (*right, *left)]);
                }
            }
        })
    }

    /// Removes the cuts among these.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn heal_among(&mut self, members: &[Member]) -> Result<()> {
        self.set(|cuts| cuts.retain(|(from, to)| !members.contains(from) || !members.contains(to)))
    }

    /// Removes the cuts between one and everybody.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn heal_of(&mut self, member: Member) -> Result<()> {
        self.set(|cuts| cuts.retain(|(from, to)| *from != member && *to != member))
    }

    /// Removes all cuts.
    ///
    /// # Errors
    /// When the rules cannot be set.
    pub fn heal(&mut self) -> Result<()> {
        self.set(BTreeSet::clear)
    }

    /// Packets that were dropped so far.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn dropped(&self) -> Result<u64> {
        let mut sum = self.dropped;
        for to in self.cuts.iter().map(|(_, to)| *to).collect::<BTreeSet<_>>() {
            sum += self.counted(to)?;
        }
        Ok(sum)
    }

    fn counted(&self, member: Member) -> Result<u64> {
        let listing = nft(&self.namespace(member), "list ruleset\n")?;
        let counts = listing.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    fn set(&mut self, change: impl FnOnce(&mut BTreeSet<(Member, Member)>)) -> Result<()> {
        let before = incoming(&self.cuts);
        // The counters go with the rules.
        self.dropped = self.dropped()?;
        change(&mut self.cuts);
        let after = incoming(&self.cuts);
        for to in self.members() {
            if before.contains_key(&to) || after.contains_key(&to) {
                nft(&self.namespace(to), &rules(after.get(&to)))?;
            }
        }
        Ok(())
    }
}

/// Whom each member must not hear.
fn incoming(cuts: &BTreeSet<(Member, Member)>) -> BTreeMap<Member, BTreeSet<Member>> {
    let mut incoming: BTreeMap<Member, BTreeSet<Member>> = BTreeMap::new();
    for (from, to) in cuts {
        incoming.entry(*to).or_default().insert(*from);
    }
    incoming
}

/// The whole rule set of one member, set at once.
fn rules(unheard: Option<&BTreeSet<Member>>) -> String {
    // The first line makes the second one succeed.
    let mut text = format!("table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n");
    if let Some(unheard) = unheard {
        let drops: String = unheard.iter().map(|from| format!("ip saddr {} counter drop\n", from.address())).collect();
        text.push_str(&format!(
            "table inet {TABLE} {{\nchain input {{\ntype filter hook input priority 0; policy accept;\n{drops}}}\n}}\n"
        ));
    }
    text
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&format!("{}-", self.name));
    }
}

/// Removes namespaces of runs whose process is gone.
fn remove_stale() {
    for name in names() {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// Removes every namespace whose name begins so. Links and rules go with them.
fn remove(beginning: &str) {
    for name in names().into_iter().filter(|name| name.starts_with(beginning)) {
        if let Err(error) = ip(&["netns", "delete", &name]) {
            eprintln!("ringraft: network namespace {name} stays behind: {error:#}");
        }
    }
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(namespace::FOLDER).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn ip(arguments: &[&str]) -> Result<String> {
    program::run("ip", arguments, "")
}

fn ip_batch(namespace: &str, commands: &str) -> Result<String> {
    program::run("ip", &["-n", namespace, "-batch", "-"], commands)
}

fn nft(namespace: &str, script: &str) -> Result<String> {
    namespace::inside(Some(namespace), || program::run("nft", &["-f", "-"], script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_those_who_must_not_be_heard() {
        let cuts = BTreeSet::from([(Member::Node(1), Member::Node(3)), (Member::Clients, Member::Node(3))]);
        let incoming = incoming(&cuts);
        assert_eq!(incoming.keys().copied().collect::<Vec<_>>(), [Member::Node(3)]);
        let text = rules(incoming.get(&Member::Node(3)));
        assert!(text.contains("ip saddr 10.77.0.1 counter drop") && text.contains("ip saddr 10.77.0.100 counter drop"));
        assert!(!rules(None).contains("drop"), "without cuts nothing is dropped");
    }
}
