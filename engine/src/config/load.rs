//! From flags, environment and file to one configuration, and where each of its values comes from.
//!
//! Off the data path.
//! Invariant: flag > environment > the documents' environment > file > default; a key the file has and nobody knows is
//! an error, never ignored.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::file;
use super::{ConfigError, NodeArgs, NodeConfig, SETTINGS, ValidNodeConfig, documents, values};

/// What the environment says; a parameter, so that a test has one of its own.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration that is not yet checked, and how it came about.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The values.
    pub config: NodeConfig,
    /// Where those come from that are not defaults: a flag, an environment variable, a file, or what they follow from.
    pub origins: BTreeMap<&'static str, String>,
    /// What was taken otherwise than it was meant, for people.
    pub warnings: Vec<String>,
    /// The foreign name that brought the peers.
    pub(super) founders: Option<String>,
}

impl Resolved {
    /// Sets one setting.
    pub(super) fn set(&mut self, key: &str, value: &str, origin: &str) -> Result<(), ConfigError> {
        let info = super::info(key);
        let number = (key == "id").then(|| values::node_number(value)).flatten().map(|number| number.to_string());
        let assigned = self.config.assign(info.key, number.as_deref().unwrap_or(value));
        assigned.map_err(|problem| ConfigError::value(info.key, value, origin, problem))?;
        self.origins.insert(info.key, origin.to_owned());
        Ok(())
    }

    /// Whether somebody set it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Says something to the operator.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// Checks values and relations, with stand-ins for what is missing: a file need not say what flags say.
    ///
    /// # Errors
    /// See [`NodeConfig::validate`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut config = self.config.clone();
        let first = config.peers.0.keys().next().copied();
        for key in self.config.missing() {
            let id = if config.id == 0 { first.unwrap_or(1) } else { config.id };
            let value = match key {
                "id" => id.to_string(),
                "cluster_id" => "1".repeat(32),
                "peers" => format!("{id}=localhost:1024"),
                _ => String::from("."),
            };
            config
                .assign(key, &value)
                .map_err(|problem| ConfigError::value(super::info(key).key, &value, "check", problem))?;
        }
        config.validate().map(drop)
    }

    /// Takes every key of a configuration file; `path` is for messages.
    fn take_file(&mut self, path: &Path, text: &str, id: Option<u64>) -> Result<(), ConfigError> {
        let table = file::parse(path, text)?;
        let origin = path.display().to_string();
        let (own, foreign): (Map<String, Value>, Map<String, Value>) =
            table.into_iter().partition(|(key, _)| !documents::is_foreign(key));
        for (key, value) in &own {
            let Some(info) = SETTINGS.iter().find(|info| info.key == key) else {
                return Err(ConfigError::UnknownKey { path: path.into(), key: key.clone(), hint: hint(key) });
            };
            self.set(info.key, &file::plain_text(value), &origin)?;
        }
        let id = id.or(Some(self.config.id).filter(|id| *id != 0));
        documents::take_file(self, path, &foreign, id)
    }
}

impl NodeArgs {
    /// Reads the configuration file, if one is named, and puts environment and flags over it.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value, where it came from and what is allowed.
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        self.resolve_in(&|name| std::env::var(name).ok())
    }

    /// The file alone, in no environment.
    ///
    /// # Errors
    /// See [`NodeArgs::resolve`].
    pub fn resolve_file(&self) -> Result<Resolved, ConfigError> {
        self.resolve_in(&|_| None)
    }

    /// The same in another environment, as far as clap has not read it.
    pub(super) fn resolve_in(&self, environment: Environment<'_>) -> Result<Resolved, ConfigError> {
        let mut resolved = Resolved::default();
        resolved.config.init = self.init;
        let id = self.given("id").map(str::to_owned).or_else(|| environment(documents::NODE_ID));
        let id = id.as_deref().and_then(values::node_number);
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File { path: path.clone(), problem: error.to_string() })?;
            resolved.take_file(path, &text, id)?;
        }
        let id = id.or(Some(resolved.config.id).filter(|id| *id != 0));
        documents::take_environment(&mut resolved, environment, id)?;
        for info in SETTINGS {
            let Some(value) = self.given(info.key) else { continue };
            let origin = match environment(info.environment) {
                Some(found) if found == value => info.environment.to_owned(),
                _ => format!("--{}", info.key.replace('_', "-")),
            };
            resolved.set(info.key, value, &origin)?;
        }
        self.documents.take(&mut resolved)?;
        documents::complete(&mut resolved)?;
        Ok(resolved)
    }

    /// [`NodeArgs::resolve`] and [`NodeConfig::validate`]; the second value is what the operator should hear.
    ///
    /// # Errors
    /// See there.
    pub fn load(&self) -> Result<(ValidNodeConfig, Vec<String>), ConfigError> {
        let resolved = self.resolve()?;
        Ok((resolved.config.validate()?, resolved.warnings))
    }
}

impl NodeConfig {
    /// Takes every key of a configuration file; `path` is for messages and for its format.
    ///
    /// # Errors
    /// See [`NodeArgs::resolve`].
    pub fn assign_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let mut resolved = Resolved { config: self.clone(), ..Resolved::default() };
        resolved.take_file(path, text, None)?;
        *self = resolved.config;
        Ok(())
    }
}

/// What may have been meant by an unknown key.
fn hint(key: &str) -> String {
    if key == "init" {
        return String::from("; --init is a flag only, to be given once");
    }
    let plain = key.replace('-', "_").to_lowercase();
    let close = |known: &str| known == plain || known.starts_with(&plain) || plain.starts_with(known);
    let known = SETTINGS.iter().find(|info| close(info.key));
    known.map_or_else(String::new, |info| format!("; did you mean `{}`?", info.key))
}
