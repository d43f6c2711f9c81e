//! Configuration files: TOML, YAML and JSON as one table of texts, and the file that `ringraft config default` prints.
//!
//! Off the data path.
//! Invariant: what [`default_file`] writes is read back as the defaults.
//! It does not know what a key means; `load.rs` does.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::{ConfigError, NodeConfig, SETTINGS, SettingInfo};

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// TOML, the default.
    #[default]
    Toml,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl Format {
    /// The format that the extension of a file names; TOML without a known one.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Toml => "TOML",
            Self::Yaml => "YAML",
            Self::Json => "JSON",
        }
    }
}

/// The table a file holds; `path` is for messages and for its format.
pub(super) fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let format = Format::of(path);
    let value = match format {
        Format::Toml => text
            .parse::<toml::Table>()
            .map_err(|error| error.to_string())
            .and_then(|table| serde_json::to_value(table).map_err(|error| error.to_string())),
        Format::Yaml => serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string()),
        Format::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
    };
    let problem = match value {
        Ok(Value::Object(table)) => return Ok(table),
        Ok(Value::Null) if format == Format::Yaml => return Ok(Map::new()), // nothing but comments
        Ok(_) => String::from("it holds no keys and values"),
        Err(problem) => problem,
    };
    Err(ConfigError::File { path: path.into(), problem: format!("as {}: {problem}", format.name()) })
}

/// The text of a value: lists as `a,b`, tables as `key=value,...`.
pub(super) fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain_text).collect::<Vec<_>>().join(","),
        Value::Object(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key}={}", plain_text(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// A configuration file with every setting at its default, each explained where the format has comments.
#[must_use]
pub fn default_file(format: Format) -> String {
    let (values, required) = (NodeConfig::default().values(), NodeConfig::default().missing());
    if format == Format::Json {
        let table: Map<String, Value> =
            values.into_iter().map(|(key, value)| (key.to_owned(), json_of(key, &value))).collect();
        return format!("{:#}\n", Value::Object(table));
    }
    let mut text = String::from("# A node of ringraft. Flags and environment variables win over this file.\n");
    for (info, (key, value)) in SETTINGS.iter().zip(values) {
        let shared = if info.shared { " The same on every node." } else { "" };
        let reload = if info.reload { " Taken from the file again at SIGHUP." } else { "" };
        let assigned = match format {
            Format::Yaml => format!("{key}: {}", json_of(key, &value)),
            _ => format!("{key} = {}", json_of(key, &value)),
        };
        // What has no default is to be filled in.
        let mark = if required.contains(&key) { "# required: " } else { "" };
        let _ = write!(text, "\n# {}{shared}{reload}\n# {}\n{mark}{assigned}\n", info.text.trim(), bounds(info));
    }
    text
}

fn bounds(info: &SettingInfo) -> String {
    if info.unit == "text" {
        format!("Allowed: {}.", info.bounds)
    } else {
        format!("Unit: {}. Allowed: {}.", info.unit, info.bounds)
    }
}

fn json_of(key: &str, value: &str) -> Value {
    let is_number = SETTINGS.iter().any(|info| info.key == key && info.unit != "text");
    let number = || value.parse::<u64>().ok().filter(|_| is_number);
    number().map_or_else(|| Value::String(value.to_owned()), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_the_defaults_in_every_format() {
        for (format, name) in [(Format::Toml, "a.toml"), (Format::Yaml, "a.yaml"), (Format::Json, "a.json")] {
            let text = default_file(format);
            let mut config = NodeConfig { tick_ms: 77, ..NodeConfig::default() };
            config.assign_file(Path::new(name), &text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(config, NodeConfig::default(), "{name}");
            for info in SETTINGS {
                assert!(text.contains(info.key), "{name}: {}", info.key);
                assert!(format == Format::Json || text.contains(info.text.trim()), "{name}: {}", info.key);
            }
        }
    }

    #[test]
    fn the_same_table_in_every_format() {
        let toml = "tick_ms = 50\nlease_reads = true\ncpus = [0, 1]\n[peers]\n1 = \"a:1\"\n2 = \"b:1\"\n";
        let yaml = "# comment\ntick_ms: 50\nlease_reads: true\ncpus: [0, 1]\npeers:\n  1: \"a:1\"\n  2: b:1\n";
        let json = r#"{"tick_ms": 50, "lease_reads": true, "cpus": [0, 1], "peers": {"1": "a:1", "2": "b:1"}}"#;
        let read = |name: &str, text: &str| parse(Path::new(name), text).unwrap();
        let expected = read("a.toml", toml);
        assert_eq!(read("no-extension", toml), expected);
        assert_eq!(read("a.yaml", yaml), expected);
        assert_eq!(read("a.yml", yaml), expected);
        assert_eq!(read("a.json", json), expected);
        let texts: Vec<String> = expected.values().map(plain_text).collect();
        assert_eq!(texts, ["0,1", "true", "1=a:1,2=b:1", "50"]);
    }

    #[test]
    fn what_is_not_in_its_format_is_told_with_the_format() {
        for (name, text, says) in [
            ("a.toml", "tick_ms: 5", "as TOML"),
            ("a.yaml", "tick_ms: [5", "as YAML"),
            ("a.yaml", "tick_ms: 5\ntick_ms: 6", "as YAML"),
            ("a.yaml", "- 5", "holds no keys"),
            ("a.json", "tick_ms = 5", "as JSON"),
            ("a.json", "7", "holds no keys"),
        ] {
            let error = parse(Path::new(name), text).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert_eq!(parse(Path::new("a.yaml"), "# nothing\n").unwrap(), Map::new());
    }
}
