//! The macro behind the one declaration of all settings: flags, file keys, environment, defaults and bounds from it.
//!
//! Off the data path.
//! Invariant: a setting cannot have a flag without a file key, an environment variable, a default, bounds and a text.

/// One setting, for help texts, documents and error messages.
#[derive(Clone, Copy, Debug)]
pub struct SettingInfo {
    /// The key in the configuration file; the flag is the same with dashes.
    pub key: &'static str,
    /// The environment variable.
    pub environment: &'static str,
    /// What it is.
    pub text: &'static str,
    /// The unit of a number, or the form of a text.
    pub unit: &'static str,
    /// The default as one would write it.
    pub default: &'static str,
    /// What is allowed.
    pub bounds: &'static str,
    /// Whether every node of a cluster must have the same value.
    pub shared: bool,
    /// Whether a running node takes a new value; the others need a restart.
    pub reload: bool,
}

/// Other spellings of a flag, not shown in the help.
pub(super) fn hidden_flags(names: &'static [&'static str]) -> Vec<&'static str> {
    names.to_vec()
}

macro_rules! help_text {
    ($unit:literal, $default:expr, $bounds:expr, $($doc:literal),+) => {
        concat!($($doc,)+ "\n\nUnit: ", $unit, ". Default: ", $default, ". Allowed: ", $bounds, ".")
    };
}

macro_rules! is_shared {
    (shared) => {
        true
    };
    (own) => {
        false
    };
}

macro_rules! is_reloaded {
    () => {
        false
    };
    (reload) => {
        true
    };
}

/// `numbers`: `name: type = default, lowest..=highest, "unit", "ENVIRONMENT", shared or own;`
/// `texts`: `name: type = "default", "form", "ENVIRONMENT", shared or own;` with a type that implements `SettingText`.
/// Behind `own` may stand `+ reload` (a running node takes a new value) and other spellings of the flag: `| "node-id"`.
macro_rules! settings {
    (
        numbers { $( $(#[doc = $doc:literal])+
            $name:ident: $type:ty = $default:literal, $low:literal ..= $high:literal, $unit:literal, $env:literal, $shared:ident
            $(+ $reload:ident)? $(| $flag:literal)*; )+ }
        texts { $( $(#[doc = $text_doc:literal])+
            $text_name:ident: $text_type:ty = $text_default:literal, $form:literal, $text_env:literal, $text_shared:ident
            $(+ $text_reload:ident)? $(| $text_flag:literal)*; )+ }
    ) => {
        /// The settings of a node as flags and environment variables; the configuration file has the same keys.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct NodeArgs {
            /// Configuration file (TOML, YAML or JSON by its extension) with the keys of the flags, underscores for dashes.
            ///
            /// `ringraft config default` prints one. A flag wins over its environment variable, that over the file, the file over the default.
            #[arg(long, env = "RINGRAFT_CONFIG", value_name = "FILE")]
            pub config: Option<PathBuf>,
            /// Create the node in empty directories. Give it once.
            ///
            /// Neither in the file nor in the environment on purpose: a node whose disk was lost must not come back
            /// empty under its old id.
            #[arg(long)]
            pub init: bool,
            $(
                #[doc = concat!($($text_doc),+)]
                #[arg(long, env = $text_env, aliases = hidden_flags(&[$($text_flag),*]), value_name = "TEXT", help = concat!($($text_doc),+).trim_start(),
                      long_help = help_text!("text", $text_default, $form, $($text_doc),+).trim_start())]
                pub $text_name: Option<String>,
            )+
            $(
                #[doc = concat!($($doc),+)]
                #[arg(long, env = $env, aliases = hidden_flags(&[$($flag),*]), value_name = "NUMBER", help = concat!($($doc),+).trim_start(),
                      long_help = help_text!($unit, stringify!($default), stringify!($low to $high), $($doc),+).trim_start())]
                pub $name: Option<String>,
            )+
            /// Flags of other programs that stand for several settings.
            #[command(flatten)]
            pub documents: DocumentFlags,
        }

        /// The settings of a node, typed, not yet checked; see [`NodeConfig::validate`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct NodeConfig {
            /// Create the node in empty directories.
            pub init: bool,
            $( $(#[doc = $text_doc])+ pub $text_name: $text_type, )+
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        /// Every setting but `config` and `init`.
        pub const SETTINGS: &[SettingInfo] = &[
            $( SettingInfo {
                key: stringify!($text_name), environment: $text_env, text: concat!($($text_doc),+), unit: "text",
                default: $text_default, bounds: $form, shared: is_shared!($text_shared),
                reload: is_reloaded!($($text_reload)?),
            }, )+
            $( SettingInfo {
                key: stringify!($name), environment: $env, text: concat!($($doc),+), unit: $unit,
                default: stringify!($default), bounds: stringify!($low to $high),
                shared: is_shared!($shared), reload: is_reloaded!($($reload)?),
            }, )+
        ];

        impl Default for NodeConfig {
            fn default() -> Self {
                Self {
                    init: false,
                    $( $text_name: <$text_type as SettingText>::read($text_default).expect("tested"), )+
                    $( $name: $default, )+
                }
            }
        }

        impl NodeArgs {
            /// What flags and environment say about a setting.
            fn given(&self, key: &str) -> Option<&str> {
                match key {
                    $( stringify!($text_name) => self.$text_name.as_deref(), )+
                    $( stringify!($name) => self.$name.as_deref(), )+
                    _ => None,
                }
            }
        }

        impl NodeConfig {
            /// Reads one value; the error says what is wrong with it.
            fn assign(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $( stringify!($text_name) => self.$text_name = SettingText::read(text)?, )+
                    $( stringify!($name) => self.$name = values::number(text, $low, $high, $unit)?
                        .try_into().map_err(|_| String::from("it is out of range"))?, )+
                    _ => return Err(String::from("there is no such setting")),
                }
                Ok(())
            }

            /// Every setting and its value, in the order of [`SETTINGS`].
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, String)> {
                vec![
                    $( (stringify!($text_name), SettingText::show(&self.$text_name)), )+
                    $( (stringify!($name), self.$name.to_string()), )+
                ]
            }

            /// The first number out of its bounds: a program may have set any.
            fn check_bounds(&self) -> Result<(), ConfigError> {
                $( values::within(u64::from(self.$name), $low, $high, $unit).map_err(|problem| {
                    ConfigError::value(stringify!($name), &self.$name.to_string(), "the program", problem)
                })?; )+
                Ok(())
            }
        }

        $( const _: () = assert!(
            $low as u128 <= $default as u128 && $default as u128 <= $high as u128 && $high as u128 <= <$type>::MAX as u128
        ); )+
    };
}

pub(super) use {help_text, is_reloaded, is_shared, settings};
