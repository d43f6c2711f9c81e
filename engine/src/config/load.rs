//! From flags, environment and file to one configuration.
//!
//! Off the data path.
//! Invariant: flag > environment > file > default (clap resolves the first two); a key the file has and nobody knows is
//! an error, never ignored.

use std::path::Path;

use super::{ConfigError, NodeArgs, NodeConfig, SETTINGS, ValidNodeConfig};

impl NodeArgs {
    /// Reads the configuration file, if one is named, and puts flags and environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, the value, where it came from and what is allowed.
    pub fn resolve(&self) -> Result<NodeConfig, ConfigError> {
        let mut config = NodeConfig { init: self.init, ..NodeConfig::default() };
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File { path: path.clone(), problem: error.to_string() })?;
            config.assign_file(path, &text)?;
        }
        for info in SETTINGS {
            if let Some(value) = self.given(info.key) {
                let origin = match std::env::var(info.environment) {
                    Ok(environment) if environment == value => info.environment.to_owned(),
                    _ => format!("--{}", info.key.replace('_', "-")),
                };
                config
                    .assign(info.key, value)
                    .map_err(|problem| ConfigError::value(info.key, value, &origin, problem))?;
            }
        }
        Ok(config)
    }

    /// [`NodeArgs::resolve`] and [`NodeConfig::validate`].
    ///
    /// # Errors
    /// See there.
    pub fn load(&self) -> Result<ValidNodeConfig, ConfigError> {
        self.resolve()?.validate()
    }
}

impl NodeConfig {
    /// Takes every key of a configuration file; `path` is for messages.
    ///
    /// # Errors
    /// See [`NodeArgs::resolve`].
    pub fn assign_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::File { path: path.into(), problem: error.to_string() })?;
        for (key, value) in &table {
            let Some(info) = SETTINGS.iter().find(|info| info.key == key) else {
                return Err(ConfigError::UnknownKey { path: path.into(), key: key.clone(), hint: hint(key) });
            };
            let value = plain_text(value);
            let origin = path.display().to_string();
            self.assign(info.key, &value).map_err(|problem| ConfigError::value(info.key, &value, &origin, problem))?;
        }
        Ok(())
    }
}

/// The text of a TOML value: lists as `a,b`, tables as `key=value,...`.
fn plain_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain_text).collect::<Vec<_>>().join(","),
        toml::Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key}={}", plain_text(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
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
