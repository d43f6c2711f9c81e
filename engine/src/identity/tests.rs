//! Tests of identities: who may use a data directory, and as whom.
//!
//! Off the data path.

use super::*;
use crate::config::NodeConfig;
use proptest::prelude::*;

fn config(directory: &Path, change: impl FnOnce(&mut NodeConfig)) -> ValidNodeConfig {
    let mut config = NodeConfig { id: 1, data_dir: directory.to_owned(), ..NodeConfig::default() };
    let text = "cluster_id = \"00112233445566778899aabbccddeeff\"\npeers = \"1=a:1,2=b:1,3=c:1\"";
    config.assign_file(Path::new("test"), text).unwrap();
    change(&mut config);
    config.validate().unwrap()
}

fn init(config: &mut NodeConfig) {
    config.init = true;
}

fn code(result: Result<Identity, IdentityError>) -> i32 {
    result.unwrap_err().exit_code()
}

#[test]
fn a_node_is_created_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node");
    let error = Identity::open(&config(&path, |_| {})).unwrap_err();
    assert!(matches!(error, IdentityError::NotInitialised { .. }), "{error}");
    assert!(!path.exists(), "a refused start changes nothing");
    assert!(Identity::open(&config(&path, init)).unwrap().created());
    assert!(path.join("wal").is_dir());
    assert!(!Identity::open(&config(&path, |_| {})).unwrap().created());
    let again = Identity::open(&config(&path, init)).unwrap_err();
    assert!(matches!(again, IdentityError::AlreadyInitialised { node: 1, .. }), "{again}");
}

#[test]
fn the_directory_is_locked_while_the_node_runs() {
    let directory = tempfile::tempdir().unwrap();
    let running = Identity::open(&config(directory.path(), init)).unwrap();
    assert_eq!(code(Identity::open(&config(directory.path(), |_| {}))), exit::LOCKED);
    drop(running);
    Identity::open(&config(directory.path(), |_| {})).unwrap();
}

#[test]
fn a_difference_is_named_with_both_values() {
    let directory = tempfile::tempdir().unwrap();
    drop(Identity::open(&config(directory.path(), init)).unwrap());
    let open = |change: fn(&mut NodeConfig)| Identity::open(&config(directory.path(), change));
    let error = open(|config| config.groups = 4).unwrap_err();
    assert!(error.to_string().contains("was made with groups = `1` but the configuration says `4`"), "{error}");
    assert_eq!(error.exit_code(), exit::IDENTITY_MISMATCH);
    let error = open(|config| config.id = 2).unwrap_err();
    assert!(error.to_string().contains("id = `1` but the configuration says `2`"), "{error}");
    let error = open(|config| config.cluster_id.0[0] = 9).unwrap_err();
    assert!(error.to_string().contains("cluster_id = `0011"), "{error}");
    assert_eq!(code(open(|config| config.session_window_max = 9)), exit::IDENTITY_MISMATCH);
    open(|config| config.tick_ms = 30).unwrap();
}

#[test]
fn a_node_joins_with_what_a_member_says_and_comes_back_as_itself() {
    let directory = tempfile::tempdir().unwrap();
    let founder = Identity::open(&config(&directory.path().join("founder"), init)).unwrap();
    let founded = config(&directory.path().join("founder"), |_| {});
    let topology = founded.initial_topology().unwrap();
    let own = |change: fn(&mut NodeConfig)| {
        config(&directory.path().join("new"), |config| {
            config.id = 4;
            config.assign_file(Path::new("test"), "peers = \"4=d:1\"").unwrap();
            change(config);
        })
    };
    let error = Identity::join(&own(|config| config.groups = 7), &founder.shared(), &topology).unwrap_err();
    assert!(error.to_string().contains("cluster has groups = `1` but the configuration says `7`"), "{error}");
    let joined = Identity::join(&own(|_| {}), &founder.shared(), &topology).unwrap();
    assert!(joined.created() && joined.joined() && !founder.joined());
    assert_eq!((joined.shared(), joined.cluster_digest()), (founder.shared(), founder.cluster_digest()));
    assert_ne!(joined.instance(), founder.instance());
    let instance = joined.instance();
    drop(joined);
    assert_eq!(Topology::read_file(&directory.path().join("new")).unwrap().as_ref(), Some(&topology));
    let reopen: [&dyn Fn() -> Result<Identity, IdentityError>; 2] =
        [&|| Identity::open(&own(|_| {})), &|| Identity::join(&own(|_| {}), &founder.shared(), &topology)];
    for open in reopen {
        let again = open().unwrap();
        assert!(!again.created() && again.joined());
        assert_eq!(again.instance(), instance);
    }
    assert_eq!(code(Identity::open(&own(|config| config.groups = 7))), exit::IDENTITY_MISMATCH);
}

#[test]
fn other_data_and_damage_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("photo.jpg"), "x").unwrap();
    let error = Identity::open(&config(directory.path(), init)).unwrap_err();
    assert!(error.to_string().contains("photo.jpg"), "{error}");
    std::fs::remove_file(directory.path().join("photo.jpg")).unwrap();
    drop(Identity::open(&config(directory.path(), init)).unwrap());
    let file = directory.path().join(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in [text.replace("\"groups\": \"1\"", "\"groups\": \"2\""), text[..text.len() / 2].to_owned()] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(code(Identity::open(&config(directory.path(), |_| {}))), exit::DATA_CORRUPT);
        assert_eq!(code(Identity::open(&config(directory.path(), init))), exit::DATA_CORRUPT);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A changed file is refused as damaged or of another node, unless it still says the same.
    #[test]
    fn a_changed_identity_is_never_another_one(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        anything in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        let directory = tempfile::tempdir().unwrap();
        drop(Identity::open(&config(directory.path(), init)).unwrap());
        let file = directory.path().join(FILE);
        let written = read(directory.path()).unwrap().unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&file, anything.unwrap_or(bytes)).unwrap();
        match Identity::open(&config(directory.path(), |_| {})) {
            Ok(_) => prop_assert_eq!(read(directory.path()).unwrap().unwrap(), written),
            Err(error) => {
                let code = error.exit_code();
                prop_assert!(code == exit::DATA_CORRUPT || code == exit::IDENTITY_MISMATCH, "{}", error);
            }
        }
    }
}

#[test]
fn a_log_directory_elsewhere_belongs_to_the_same_node() {
    let directory = tempfile::tempdir().unwrap();
    let (data, wal) = (directory.path().join("data"), directory.path().join("wal-disk"));
    let with_wal = |change: fn(&mut NodeConfig)| {
        config(&data, |config| {
            config.wal_dir = Some(wal.clone());
            change(config);
        })
    };
    drop(Identity::open(&with_wal(init)).unwrap());
    drop(Identity::open(&with_wal(|_| {})).unwrap());
    std::fs::remove_file(wal.join(FILE)).unwrap();
    let error = Identity::open(&with_wal(|_| {})).unwrap_err();
    assert!(error.to_string().contains("wal-disk"), "{error}");
    // A creation that was interrupted before the data directory had its file may be repeated.
    std::fs::remove_file(data.join(FILE)).unwrap();
    drop(Identity::open(&with_wal(init)).unwrap());
    drop(Identity::open(&with_wal(|_| {})).unwrap());
}
